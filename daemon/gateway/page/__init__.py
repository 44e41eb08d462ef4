"""The status page: `assets` serves its files, `live` its events and actions, which `feed` makes.

The page itself, and the endpoints for programs, are in `pages`; its template, style and script in `../assets`.
"""
