"""The HTML report: plain data in, one self-contained page out."""

from memattn.report.folder import PAGE, THRESHOLDS, check_target, is_page, whole_folder
from memattn.report.page import (
    DetectorRow,
    Group,
    Interval,
    NearestImage,
    ReportPage,
    SampleCard,
    Score,
    TokenShare,
)
from memattn.report.tokens import token_shares
from memattn.report.write import write_report

__all__ = [
    "PAGE",
    "THRESHOLDS",
    "DetectorRow",
    "Group",
    "Interval",
    "NearestImage",
    "ReportPage",
    "SampleCard",
    "Score",
    "TokenShare",
    "check_target",
    "is_page",
    "token_shares",
    "whole_folder",
    "write_report",
]
