"""Orders: a Flask API, the Celery tasks behind it, the database's schema and the sales report. One image, four commands."""
