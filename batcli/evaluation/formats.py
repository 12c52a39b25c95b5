"""The forms of `bat score --format`."""

from batcli.evaluation.report import to_csv, to_json, to_markdown
from batcli.evaluation.table import to_table

FORMATS = {"table": to_table, "json": to_json, "csv": to_csv, "md": to_markdown}
