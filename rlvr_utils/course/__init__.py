"""Run the whole course: execute every notebook in order, write one report, and print the gain in accuracy."""

from .report import write_report
from .runner import CourseError, course_notebooks, notebook_parameters, run_course
from .timetable import timetable
