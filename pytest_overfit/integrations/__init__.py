"""Objects of other libraries as subjects of a run; a library is imported once an object of it is handed over."""
