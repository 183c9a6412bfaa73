"""The page of `studies.report`: what it shows (page.py), and its template, style and script."""
