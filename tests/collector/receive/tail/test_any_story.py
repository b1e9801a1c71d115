"""Any story of a log: written, rotated by both ways, copied, compressed; the tail killed before and behind acks, and overloaded. Every line once.

What a story leaves out is what no reader can keep: lines between a copy and its truncation, and files that come and go while nobody looks.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from collector.receive import Arrival, Receipt
from collector.sender import OURSELVES, Sender
from tests.support.faulty_disk import Crashed
from tests.support.memory_intake import MemoryIntake
from tests.support.tailing import Tailing, copytruncate, write

STORIES = int(os.environ.get("TALLY_STORIES", "24"))
SEED = int(os.environ.get("TALLY_SEED", "7"))


class MortalIntake(MemoryIntake):
    """Dies at an acceptance, before or behind its being durable, when the story says so."""

    dies: str = ""

    async def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Receipt:
        dies, self.dies = self.dies, ""
        if dies == "before":
            raise Crashed("before the ack")
        receipt = await super().accept(arrivals, group_id=group_id, heard=heard, sender=sender)
        if dies:
            raise Crashed("behind the ack")
        return receipt


class Story:
    """One service's log and its tail, by chance."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.chance = random.Random(seed)
        self.tail = Tailing(
            folder,
            paths=(f"{folder}/logs/app.log*",),
            release_seconds=self.chance.choice([1, 60]),
            max_open_files=self.chance.choice([2, 256]),
            multiline={"indented": self.chance.random() < 0.5, "timeout_seconds": self.chance.choice([1, 5])},
        )
        self.tail.intake = self.intake = MortalIntake()
        self.log = self.tail.logs / "app.log"
        self.banner = self.chance.choice(["", "welcome\n", "x" * 2_000 + "\n"])
        self.written: list[str] = []
        self.told: list[str] = []
        self.tailer = self.tail.tailer()

    async def run(self, steps: int) -> None:
        rotate = self.chance.choice([self.rename, self.copy_and_truncate])
        choices = [
            self.write, self.write, self.write, self.half, rotate, rotate, self.compress,
            self.restart, self.die, self.press, self.rest, self.look, self.look, self.look,
        ]  # fmt: skip
        for _ in range(steps):
            step = self.chance.choice(choices)
            self.told.append(step.__name__)
            await step()
        await self.calm()
        self.tailer._watch.close()

    async def write(self) -> None:
        text = ""
        if not self.log.exists() or not self.log.stat().st_size:
            text = self.banner
            self.written += self.banner.split()
        for _ in range(self.chance.choice([1, 3, 100])):
            text += self.chance.choice(["", " ", "  "]) + self.word() + "\n"
        write(self.log, text)

    def word(self) -> str:
        self.written.append(f"w{len(self.written)}")
        return self.written[-1]

    async def half(self) -> None:
        await self.write()
        word = self.word()
        write(self.log, word[:2])
        await self.look()
        write(self.log, word[2:] + "\n")

    def age(self) -> None:
        for old in sorted(self.tail.logs.glob("app.log.*"), key=lambda path: -int(path.suffixes[1][1:])):
            number = int(old.suffixes[1][1:]) + 1
            old.rename(old.with_name(f"app.log.{number}" + (".gz" if old.suffix == ".gz" else "")))

    async def rename(self) -> None:
        if self.log.exists():
            self.age()
            self.log.rename(self.log.with_name("app.log.1"))

    async def copy_and_truncate(self) -> None:
        if self.log.exists():
            self.age()
            copytruncate(self.log, self.log.with_name("app.log.1"))

    async def compress(self) -> None:
        await self.calm()  # what was to be read of it, was: what is compressed before that is lost
        plain = [path for path in self.tail.logs.glob("app.log.*") if path.suffix != ".gz"]
        if plain:
            old = self.chance.choice(plain)
            old.with_name(old.name + ".gz").write_bytes(gzip.compress(old.read_bytes()))
            old.unlink()

    async def restart(self) -> None:
        self.tailer._watch.close()
        self.tailer = self.tail.tailer()

    async def die(self) -> None:
        self.intake.dies = self.chance.choice(["before", "behind"])

    async def press(self) -> None:
        self.intake.overloaded = self.chance.randint(1, 4)

    async def rest(self) -> None:
        await self.look(6.0)

    async def calm(self) -> None:
        self.intake.dies, self.intake.overloaded = "", 0
        for _ in range(12):
            await self.rest()

    async def look(self, seconds: float = 0.3) -> None:
        self.tail.clock.seconds += seconds
        try:
            await self.tailer.look()
            while await self.tailer.turn():
                pass
        except Crashed:
            await asyncio.sleep(0)
            await self.restart()


@pytest.mark.parametrize("part", range(4))
def test_every_line_once_whatever_happens(tmp_path: Path, part: int) -> None:
    for number in range(part, STORIES, 4):
        folder = tmp_path / str(number)
        folder.mkdir()
        story = Story(folder, f"{SEED}/{number}")
        asyncio.run(story.run(30))
        words = Counter("\n".join(map(str, story.tail.bodies)).split())
        written = Counter(story.written)
        assert words == written, (
            f"seed {SEED}, story {number}: lost {written - words}, doubled {words - written}: {' '.join(story.told)}"
        )
