import os
import signal
import threading

import pytest

from dataset.io.interrupts import STOP_SIGNALS, stop_after_step


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_sets_the_event_and_the_second_raises(number: signal.Signals):
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with stop_after_step() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_a_second_signal_may_be_left_to_the_loop():
    with stop_after_step(second_raises=False) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()


def test_another_thread_changes_no_handlers():
    seen: list[object] = []

    def run() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with stop_after_step() as stop:
            seen.append((signal.getsignal(signal.SIGTERM) is before, stop.is_set()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(True, False)]
