//! Rules about the code that are checked as tests.
