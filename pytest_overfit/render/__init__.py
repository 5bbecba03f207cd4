"""Documents as pages and texts: the HTML page, the experiment record in Markdown, what a CI service shows."""
