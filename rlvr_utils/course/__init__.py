"""The course end to end: every notebook executed in order, one report to read, and what was learned."""

from .report import write_report
from .runner import CourseError, course_notebooks, notebook_parameters, run_course
from .timetable import timetable
