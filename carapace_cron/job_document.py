"""A job as bytes: written so that it can be read again, read so that nothing foreign gets in."""

from __future__ import annotations

from pydantic import ValidationError

from carapace_cron.errors import InvalidValue
from carapace_cron.ids import is_job_id, random_text
from carapace_cron.model.job import Job
from carapace_cron.model.record import explain

PREFIX = "cron/jobs/"
_SUFFIX = ".json"
WRITE_ID_LENGTH = 12  # 62 random bits: it has to differ among the writes of one job only
REMEMBERED_WRITES = 16  # of others that may come between a write whose answer was lost and the look at it
MAX_BYTES = 512 * 1024  # twice the largest request body: room for the escapes of JSON


def key_of(job_id: str) -> str:
    """The object's key. Only a well-formed id ever becomes a part of one; raises `InvalidValue`.

    >>> key_of("job_1764547200000_0123456789abcdefghij")
    'cron/jobs/job_1764547200000_0123456789abcdefghij.json'
    """
    if not is_job_id(job_id):
        raise InvalidValue(f"bad job id {job_id[:60]!r}: expected job_<13 digits>_<16–26 characters>")
    return f"{PREFIX}{job_id}{_SUFFIX}"


def id_in(key: str) -> str:
    """The id of the job that belongs under `key`; the key itself when no job does.

    >>> id_in("cron/jobs/job_1764547200000_0123456789abcdefghij.json")
    'job_1764547200000_0123456789abcdefghij'
    >>> id_in("cron/jobs/notes.txt")
    'cron/jobs/notes.txt'
    """
    job_id = key.removeprefix(PREFIX).removesuffix(_SUFFIX)
    return job_id if is_job_id(job_id) and key == key_of(job_id) else key


def written(job: Job, *, over: Job | None) -> tuple[Job, bytes]:
    """The job as the next write after `over` (None: the first), and its document.

    Raises `InvalidValue` rather than write a document that could not be read again.
    """
    earlier = () if over is None else (over.write_id, *over.earlier_write_ids)[:REMEMBERED_WRITES]
    stamped = job.evolve(write_id=random_text(WRITE_ID_LENGTH), earlier_write_ids=earlier)
    body = stamped.model_dump_json(by_alias=True, exclude_none=True).encode()
    return read(key_of(job.id), body), body


def fate(write: Job, current: Job | None) -> bool | None:
    """Whether `write`, whose answer was no or was lost, is part of the history of the `current` document.

    None when it cannot be told: the document is as it was before (the write may still arrive), is gone, or
    was written so often since that its history does not reach back.
    """
    if current is None:
        return None
    if write.write_id in (current.write_id, *current.earlier_write_ids):
        return True
    before = write.earlier_write_ids[:1]
    return False if not before or before[0] in current.earlier_write_ids else None


def read(key: str, body: bytes) -> Job:
    """The job in a document. Raises `InvalidValue` for one that is too large, that has unknown or missing
    fields (a newer version wrote it, or a person), or that says it is another job than its key says."""
    if len(body) > MAX_BYTES:
        raise InvalidValue(f"bad job document of {len(body)} bytes: expected at most {MAX_BYTES}")
    try:
        job = Job.model_validate_json(body)
    except ValidationError as error:
        raise explain(error) from error
    if not is_job_id(job.id) or key != key_of(job.id):
        raise InvalidValue(f"bad id {job.id[:60]!r}: expected the well-formed id that the key names")
    return job
