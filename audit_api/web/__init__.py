"""The auditor's desk: pages rendered here, that need no script to be read, and verify in the browser where there is one.

`Desk` has its routes. Whatever a page shows went through the same operations, roles, limits and record as the API's answers.
"""
