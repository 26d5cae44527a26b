"""The reading end of a BPF ring buffer: yields records in the order of writing, parses none.

The kernel shares three things by mmap: our position (a page we write), its position, and the data,
mapped twice in a row so that no record is ever broken. A record has an eight-byte header: length,
with two flags. One reader at a time; the next one resumes where the last one stopped.

Positions and headers are read in the order the kernel writes them. Between any two of these reads
the interpreter runs hundreds of instructions and takes locks: no processor reorders that far.
"""

import mmap
import struct

from agent.datapath.maps import Map

_BUSY, _DISCARDED, _LENGTH = 1 << 31, 1 << 30, (1 << 30) - 1
_HEADER_BYTES = 8
_POSITION = struct.Struct("=Q")
_HEADER = struct.Struct("=I")


def record_bytes(payload_bytes: int) -> int:
    """Space of a record in the ring: header and payload, rounded up to eight bytes."""
    return _HEADER_BYTES + payload_bytes + 7 & ~7


class Ring:
    def __init__(self, ring: Map) -> None:
        page = mmap.PAGESIZE
        self._fd = ring.fd
        self.size_bytes = ring.max_entries
        self._ours = mmap.mmap(ring.fd, page)
        data_bytes = page + 2 * self.size_bytes
        self._theirs = mmap.mmap(ring.fd, data_bytes, prot=mmap.PROT_READ, offset=page)

    def fileno(self) -> int:
        """Descriptor that is readable when there are records; the map closes it."""
        return self._fd

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def unread_bytes(self) -> int:
        (written,) = _POSITION.unpack_from(self._theirs, 0)
        (read,) = _POSITION.unpack_from(self._ours, 0)
        return int(written) - int(read)

    def read(self, records_max: int) -> list[bytes]:
        """At most `records_max` records; none when there is nothing to read yet."""
        found: list[bytes] = []
        (position,) = _POSITION.unpack_from(self._ours, 0)
        while len(found) < records_max:
            (written,) = _POSITION.unpack_from(self._theirs, 0)
            if position >= written:
                break
            start = mmap.PAGESIZE + position % self.size_bytes
            (header,) = _HEADER.unpack_from(self._theirs, start)
            if header & _BUSY:
                break
            length = header & _LENGTH
            if not header & _DISCARDED:
                payload = start + _HEADER_BYTES
                found.append(self._theirs[payload : payload + length])
            position += record_bytes(length)
            _POSITION.pack_into(self._ours, 0, position)
        return found
