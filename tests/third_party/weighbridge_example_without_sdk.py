"""An engine whose SDK is not installed."""

import the_sdk_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401
