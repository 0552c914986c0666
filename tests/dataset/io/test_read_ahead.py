import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataset.io.read_ahead import draw_ahead, in_thread, map_ahead


@pytest.mark.parametrize("count", [0, 1, 3, 10])
@pytest.mark.parametrize("ahead", [0, 1, 3, 20])
def test_items_come_in_order_with_a_bounded_number_drawn(count: int, ahead: int):
    drawn: list[int] = []

    def items():
        for number in range(count):
            drawn.append(number)
            yield number

    for place, item in enumerate(draw_ahead(items(), ahead)):
        assert item == place
        assert len(drawn) == min(count, place + 1 + ahead)
    assert len(drawn) == count


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_results_come_in_order(ahead: int):
    with ThreadPoolExecutor(3) as pool:
        assert list(map_ahead(pool, lambda x: x * x, range(20), ahead)) == [x * x for x in range(20)]


def test_an_error_is_raised_at_its_turn():
    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda x: 1 // x, [2, 1, 0, 1], 3)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_closing_cancels_what_has_not_begun():
    gate, begun = threading.Event(), []

    def wait(number: int) -> int:
        begun.append(number)
        if number:
            gate.wait(10)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = map_ahead(pool, wait, range(10), 5)
        assert next(results) == 0
        results.close()
        gate.set()
    assert len(begun) <= 2


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_a_thread_takes_a_bounded_number_of_items(ahead: int):
    drawn: list[int] = []
    full = threading.Event()

    def items():
        for number in range(10):
            drawn.append(number)
            if number == 2 + ahead:
                full.set()
            yield number

    results = in_thread(items(), ahead)
    assert drawn == []
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert full.wait(10)
    time.sleep(0.05)
    assert len(drawn) == 3 + ahead
    assert list(results) == list(range(3, 10))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_thread_is_raised_after_the_items_before_it(error: type[BaseException]):
    def items():
        yield 1
        raise error

    results = in_thread(items(), 3)
    assert next(results) == 1
    with pytest.raises(error):
        next(results)


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_closing_ends_the_thread(taken: int):
    before = threading.active_count()
    results = in_thread(iter(int, 1), 2)
    for _ in range(taken):
        next(results)
    results.close()
    assert threading.active_count() == before
