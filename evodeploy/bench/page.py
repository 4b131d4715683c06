"""stub"""

from evodeploy.bench.report import Report


def as_html(report: Report) -> str:
    """Stub."""
    return ""
