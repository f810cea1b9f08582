"""The figures of the report: each is made by one function from `tombola.report.report_data.ReportData`."""
