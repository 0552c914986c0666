"""The azimuth at which the texture phase uses the input image."""

from dataclasses import replace

import pytest

from distill.config import DistillRequest
from distill.runs.job import _input_azimuth_deg
from tests.support.distill_micro import SETTINGS

REQUEST = DistillRequest("image", "model", "tiny", 15.0, 3.0, SETTINGS)
WITH_LOSS = replace(REQUEST, settings=replace(SETTINGS, reference_weight=10.0))


@pytest.mark.parametrize(
    ("request_", "absolute", "azimuth_deg"),
    [
        (REQUEST, False, 0.0),
        (REQUEST, True, None),
        (replace(REQUEST, reference_azimuth_deg=0.0), True, 0.0),
        (replace(REQUEST, reference_azimuth_deg=20.0), True, 20.0),
        (WITH_LOSS, True, 0.0),
        (replace(WITH_LOSS, loss_azimuth_deg=-30.0), True, -30.0),
    ],
)
def test_an_azimuth_that_the_run_used_is_not_estimated(
    request_: DistillRequest, absolute: bool, azimuth_deg: float | None
) -> None:
    assert _input_azimuth_deg(request_, absolute=absolute) == azimuth_deg
