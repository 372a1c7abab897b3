"""Failed assertions of the cases tell what they compared, as those of tests do."""

import pytest

pytest.register_assert_rewrite("tests.faults")
