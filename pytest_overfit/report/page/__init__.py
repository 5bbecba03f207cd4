"""Documents as HTML: an overview, and a page per run, with curves, pictures, causes and numbers (Jinja2, Bokeh)."""
