"""The figures of the report: each is made by one function, from what `tombola.report.report_data` gathered."""
