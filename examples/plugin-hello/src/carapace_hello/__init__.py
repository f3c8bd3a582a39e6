"""An example of a third party's plugin; see its README.md."""
