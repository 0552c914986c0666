"""Messages of the packages."""

import logging

import pytest
from tqdm import tqdm

from dataset.log import ProgressSafeHandler, configure_logging


def test_messages_go_to_stderr_and_warnings_say_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logger = logging.getLogger("train.some_module")
    logger.debug("not shown")
    logger.info("%s: %d objects", "shards", 3)
    logger.warning("curves are not written")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "shards: 3 objects\nwarning: curves are not written\n")


def test_a_second_call_adds_no_handler_and_changes_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.WARNING)
    logging.getLogger("render.x").info("not shown")
    configure_logging()
    logging.getLogger("render.x").info("shown once")
    assert capsys.readouterr().err == "shown once\n"
    assert [type(handler) for handler in logging.getLogger("render").handlers] == [ProgressSafeHandler]


def test_a_bar_is_cleared_before_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=3, desc="bar") as bar:
        bar.update()
        logging.getLogger("distill.sds").info("a preview")
    lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert "a preview" in lines  # on a line of its own


@pytest.mark.parametrize("propagate", [True, False])
def test_messages_reach_handlers_of_the_root_logger_unless_told_not_to(
    propagate: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(propagate=propagate)
    try:
        logging.getLogger("train.loop").info("shown")
    finally:
        configure_logging()
    assert caplog.messages == (["shown"] if propagate else [])
    assert capsys.readouterr().err == "shown\n"
