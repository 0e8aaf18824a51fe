"""In which order calls take their turns."""

import random
from collections.abc import Iterable, Iterator
from typing import TypeVar

Name = TypeVar("Name")


def orders(names: Iterable[Name], rounds: int, seed: int = 0) -> Iterator[list[Name]]:
    """An order for every round.

    Drawn for every first round of two, and reversed in the second, so that no call gains from its
    place while the machine grows slower or faster.

    Args:
        names: What is ordered.
        rounds: How many orders.
        seed: Of the draws.
    """
    draw = random.Random(seed)
    order = list(names)
    for number in range(rounds):
        if number % 2:
            order.reverse()
        else:
            draw.shuffle(order)
        yield list(order)
