# SPDX-License-Identifier: Apache-2.0
"""Key slots: several open one repository, the last one stays, and what is wrong with one is said."""

from __future__ import annotations

import msgspec
import pytest

from deltaimg.crypto.key_slots import Costs, KeyFile, Passphrase
from deltaimg.errors import (
    KeyNeeded,
    LastKey,
    Malformed,
    MemoryLimitReached,
    RepositoryLocked,
    UnsupportedFormat,
    UsageError,
    WrongKey,
)
from deltaimg.format.framing import Kind, frame
from deltaimg.format.key_slot import KeySlot
from deltaimg.repo.key_slots import (
    add_key_slot,
    load_key_slots,
    open_key_slots,
    remove_key_slot,
    replace_key_slot,
)
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.object_kinds import KEY_SLOT
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START
from tests.support.images import SyntheticImage
from tests.support.repositories import KEY, assert_restores, back_up_image, make_repository

CHEAP = Costs(64, 1)


def passphrase(text: str) -> Passphrase:
    """A passphrase whose slot costs next to nothing."""
    return Passphrase(text, CHEAP)


def slots_of(repository: Repository) -> tuple[KeySlot, ...]:
    return load_key_slots(repository.objects).slots


def opens(repository: Repository, key: KeyFile | Passphrase) -> bool:
    try:
        secret, _ = open_key_slots(repository.objects, repository.config, key)
    except WrongKey:
        return False
    return secret == repository.secret


def test_each_of_several_keys_opens_a_repository_and_nothing_else_is_written_for_it():
    repository = make_repository(key=passphrase("first"))
    image = SyntheticImage(100_000)
    image.write_pages(0, 50_000)
    manifest = back_up_image(repository, image)
    objects = dict(repository.objects.store.objects)  # type: ignore[attr-defined]
    add_key_slot(repository, KEY, "key file", START)
    add_key_slot(repository, passphrase("zweite Wörter"), "spare", START)
    assert all(opens(repository, key) for key in (passphrase("first"), KEY, passphrase("zweite Wörter")))
    after: dict[str, bytes] = repository.objects.store.objects  # type: ignore[attr-defined]
    assert {name: data for name, data in after.items() if not name.startswith("keys/")} == {
        name: data for name, data in objects.items() if not name.startswith("keys/")
    }
    opened = Repository.open(
        repository.objects.store, lambda objects, config: open_key_slots(objects, config, passphrase("first"))[0]
    )
    assert_restores(opened, manifest, image.content)


@pytest.mark.parametrize("wrong", [passphrase("First"), passphrase(""), passphrase("first "), KeyFile(bytes(32))])
def test_another_key_opens_nothing(wrong):
    repository = make_repository(key=passphrase("first"))
    with pytest.raises(WrongKey, match="opens none of its keys"):
        open_key_slots(repository.objects, repository.config, wrong)


def test_without_a_key_nothing_is_opened():
    repository = make_repository(key=KEY)
    with pytest.raises(KeyNeeded, match="is encrypted, and no key was given"):
        Repository.open(repository.objects.store)


def test_a_key_that_was_changed_no_longer_opens():
    repository = make_repository(key=passphrase("first"))
    (old,) = slots_of(repository)
    new = replace_key_slot(repository, old, passphrase("second"), START)
    assert slots_of(repository) == (new,)
    assert opens(repository, passphrase("second"))
    assert not opens(repository, passphrase("first"))


def test_a_key_is_removed_by_label_or_id_and_the_last_one_stays():
    repository = make_repository(key=passphrase("first"))
    (first,) = slots_of(repository)
    spare = add_key_slot(repository, KEY, "spare", START)
    with pytest.raises(UsageError, match="there is no key 'other'"):
        remove_key_slot(repository, "other", START)
    assert remove_key_slot(repository, "spare", START) == spare
    assert not opens(repository, KEY)
    with pytest.raises(LastKey, match="this is its only key"):
        remove_key_slot(repository, first.id[:6], START)
    assert opens(repository, passphrase("first"))


@pytest.mark.parametrize("label", ["a\x1fb", "x" * 101, "\udcff"])
def test_a_label_that_no_reader_would_take_is_refused(label: str):
    repository = make_repository(key=KEY)
    with pytest.raises(UsageError, match="the label is longer than 100 letters or has control characters"):
        add_key_slot(repository, KEY, label, START)
    assert len(slots_of(repository)) == 1


def test_a_label_is_used_once_and_there_are_not_more_slots_than_may_be():
    repository = make_repository(key=KEY)
    add_key_slot(repository, KEY, "spare", START)
    with pytest.raises(UsageError, match="there is a key 'spare' already"):
        add_key_slot(repository, KEY, "spare", START)
    for _ in range(14):
        add_key_slot(repository, KEY, "", START)
    with pytest.raises(UsageError, match="there are 16 keys already"):
        add_key_slot(repository, KEY, "", START)
    with pytest.raises(UsageError, match="more than one key"):
        remove_key_slot(repository, "", START)


def test_keys_are_not_changed_while_another_run_changes_them():
    repository = make_repository(key=KEY)
    with MaintenanceLock(repository, "key remove", START), pytest.raises(RepositoryLocked):
        add_key_slot(repository, KEY, "", START)


def test_a_damaged_slot_is_left_out_and_named_where_it_may_be_why_a_key_does_not_open():
    repository = make_repository(key=passphrase("first"))
    (first,) = slots_of(repository)
    add_key_slot(repository, KEY, "", START)
    objects: dict[str, bytes] = repository.objects.store.objects  # type: ignore[attr-defined]
    objects[first.object_name] = objects[first.object_name][:-1] + b"]"
    assert opens(repository, KEY)
    with pytest.raises(WrongKey) as caught:
        open_key_slots(repository.objects, repository.config, passphrase("first"))
    assert first.object_name in (caught.value.hint or "")


def test_a_slot_that_needs_more_memory_than_there_may_be_is_refused_before_any_is_taken(monkeypatch):
    repository = make_repository(key=KEY)
    (slot,) = slots_of(repository)
    greedy = KeySlot(
        id="00000000000000aa",
        type="passphrase",
        label="",
        created="",
        salt=slot.salt,
        wrapped=slot.wrapped,
        memory_kib=1 << 20,
        iterations=1,
        lanes=1,
    )
    repository.objects.put(KEY_SLOT, greedy.object_name, greedy)
    monkeypatch.setenv("DELTAIMG_METADATA_MEMORY", "256M")
    with pytest.raises(MemoryLimitReached, match=greedy.object_name):
        open_key_slots(repository.objects, repository.config, passphrase("first"))


@pytest.mark.parametrize(
    ("memory_kib", "iterations", "lanes"),
    [(1 << 20, 9, 4), ((1 << 20) + 1, 1, 1), (64, 1, 9), (8, 65, 1), (7, 1, 1), (1 << 31, 1, 1), (1 << 17, 1 << 31, 1)],
)
def test_costs_that_are_absurd_are_refused_before_a_key_is_derived(memory_kib, iterations, lanes, monkeypatch):
    repository = make_repository(key=passphrase("first"))
    objects: dict[str, bytes] = repository.objects.store.objects  # type: ignore[attr-defined]
    (slot,) = slots_of(repository)
    document = msgspec.to_builtins(slot) | {"memory_kib": memory_kib, "iterations": iterations, "lanes": lanes}
    objects[slot.object_name] = frame(Kind.KEY_SLOT, msgspec.json.encode(document))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a key was derived")

    monkeypatch.setattr("cryptography.hazmat.primitives.kdf.argon2.Argon2id", refuse)
    with pytest.raises(Malformed, match=slot.object_name):
        open_key_slots(repository.objects, repository.config, passphrase("first"))


def test_secrets_are_in_no_text():
    repository = make_repository(key=passphrase("canary"))
    assert repository.secret is not None
    texts = [f"{each!r} {each}" for each in (repository.secret, passphrase("canary"), KEY, repository.config)]
    for secret in ("canary", repository.secret.master_key.hex(), repr(KEY.key)):
        assert not any(secret in text for text in texts)


def test_a_member_of_a_family_shares_the_secret_only_where_both_are_encrypted():
    plain, encrypted = make_repository(), make_repository(key=KEY)
    sealed_copy = make_repository(MemoryStore("b"), key=KEY, like=plain)
    assert sealed_copy.keys == plain.keys
    assert sealed_copy.config.digest_key is None
    member = make_repository(MemoryStore("c"), key=passphrase("other"), like=encrypted)
    assert member.secret == encrypted.secret
    bare = make_repository(MemoryStore("d"), like=encrypted)
    assert bare.keys == encrypted.keys
    assert bare.secret is None


def test_an_encrypted_object_is_refused_where_nothing_is_encrypted():
    plain, encrypted = make_repository(), make_repository(key=KEY)
    image = SyntheticImage(20_000)
    image.write(0, b"content")
    manifest = back_up_image(encrypted, image)
    data = encrypted.objects.store.objects[manifest.object_name]  # type: ignore[attr-defined]
    plain.objects.store.objects[manifest.object_name] = data  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedFormat, match="is sealed, and nothing that is sealed belongs here"):
        plain.load_manifest(plain.list_snapshots()[0])
