"""Object stores, each in its own file, behind one port."""
