"""What was sent and is not acknowledged yet: kept in blocks, given again, let go."""

from caa.datapath.replay import BLOCK, LARGE, Pool, Replay


class TestReplay:
    def test_blocks_that_are_sent_again_come_back_to_the_pool_at_once(self) -> None:
        pool = Pool()
        kept = Replay(pool)
        block = pool.take()
        block[:] = b"x" * BLOCK
        kept.keep(memoryview(block))
        kept.rewind(1)
        assert pool.take() is block
        block[:] = b"y" * BLOCK
        assert kept.next() == b"x" * (BLOCK - 1)

    def test_large_reads_are_kept_and_come_back_to_the_pool(self) -> None:
        pool = Pool()
        kept = Replay(pool)
        block = pool.take()
        kept.add(b"small")
        kept.keep(memoryview(block)[:LARGE])
        kept.drop(5 + LARGE - 1)
        assert pool.take() is not block
        kept.drop(5 + LARGE)
        assert pool.take() is block

    def test_a_small_tail_does_not_stay(self) -> None:
        kept = Replay(None)
        kept.add(b"x" * 500)
        kept.drop(400)
        assert (kept.base, bytes(kept.tail)) == (400, b"x" * 100)
        kept.drop(300)
        assert kept.base == 400

    def test_again_in_large_blocks(self) -> None:
        kept = Replay(None)
        for _ in range(5000):
            kept.add(b"0123456789" * 10)
        kept.rewind(7)
        sizes = []
        while (block := kept.next()) is not None:
            sizes.append(len(block))
        assert sizes == [BLOCK] * 3 + [500_000 - 7 - 3 * BLOCK]
        assert kept.given() == 500_000

    def test_the_pool_is_bounded_and_takes_its_own_size_only(self) -> None:
        pool = Pool(10, most=2)
        for size in (10, 10, 10, 11):
            pool.give(bytearray(size))
        assert len(pool._blocks) == 2
        pool.trim()
        assert len(pool._blocks) == 0
        assert len(pool.take()) == 10
