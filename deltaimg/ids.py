# SPDX-License-Identifier: Apache-2.0
"""Numbers of different things, each of a type of its own: an entry of the index never passes for a record or a slot.

For the type checker these are kinds of int and of one-dimensional int64 array; at run time they are plain ints and arrays, and
`EntryNumbers(array)` returns the array that it is given. Choosing among them (`numbers[places]`, `distinct`) keeps the type;
computing (`numbers + 1`, `np.flatnonzero`, `np.concatenate`) gives plain arrays, which are converted back.

    entry     a line of the loaded index: a record where it is stored; counts from 0, the oldest index object's first
    record    a record that a `SlotTable` or a map layer has numbered; counts from 0, in the order in which they were met
    slot      a block's place in a record, numbered over all records of a table; 0 is a hole, 1 zero, data from FIRST_SLOT
    link      from an entry that is a delta to one of its delta sources; counts from 0, entry after entry
    block     a block of an image: its index times the size of a block is its offset
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NewType

import numpy as np
import numpy.typing as npt

EntryNumber = NewType("EntryNumber", int)
RecordNumber = NewType("RecordNumber", int)
SlotNumber = NewType("SlotNumber", int)
LinkNumber = NewType("LinkNumber", int)
BlockIndex = NewType("BlockIndex", int)

if TYPE_CHECKING:
    from typing import Generic, Self, TypeVar

    Number = TypeVar("Number", bound=int)

    class _Numbers(np.ndarray[Any, np.dtype[np.int64]], Generic[Number]):
        def __new__(cls, numbers: npt.NDArray[np.int64]) -> Self: ...
        def __getitem__(self, places: Any) -> Self: ...
        def tolist(self) -> list[Number]: ...  # type: ignore[override]
        def copy(self, order: Any = "C") -> Self: ...

    class EntryNumbers(_Numbers[EntryNumber]): ...

    class RecordNumbers(_Numbers[RecordNumber]): ...

    class SlotNumbers(_Numbers[SlotNumber]): ...

    class LinkNumbers(_Numbers[LinkNumber]): ...

    class BlockIndexes(_Numbers[BlockIndex]): ...

else:
    EntryNumbers = NewType("EntryNumbers", np.ndarray)
    RecordNumbers = NewType("RecordNumbers", np.ndarray)
    SlotNumbers = NewType("SlotNumbers", np.ndarray)
    LinkNumbers = NewType("LinkNumbers", np.ndarray)
    BlockIndexes = NewType("BlockIndexes", np.ndarray)
