import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataset.io.read_ahead import draw_ahead, map_ahead


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
