"""Calls over the connection to etcd: what a peer may do, what it may not, and what is known of a call that failed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from h2.settings import SettingCodes
from hpack import Encoder

from clusterling.storage.etcd import http2
from clusterling.storage.etcd.calls import CallFailed, Channel, Code
from clusterling.testing.store_contract import PATIENCE_S
from tests.ports import free_port
from tests.storage.certificates import certificates
from tests.storage.http2_peer import (
    ACK,
    BEGIN,
    CONTINUATION,
    DATA,
    DONE,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RESET,
    SETTINGS,
    UPDATE,
    Peer,
    Raw,
    Script,
    Session,
    frame,
    framed,
    message,
    serving,
    watched,
)

METHOD = "/test.Test/Ask"


@asynccontextmanager
async def calling(script: Script, host: str = "127.0.0.1") -> AsyncIterator[tuple[Channel, Peer]]:
    async with asyncio.timeout(PATIENCE_S), serving(script, host) as peer:
        channel = Channel(peer.endpoint, None, "")
        try:
            yield channel, peer
        finally:
            await channel.close()


async def ask(channel: Channel, question: bytes = b"?", *, timeout_s: float = PATIENCE_S) -> bytes:
    return await channel.call(METHOD, question, token="", timeout_s=timeout_s)


async def refused(
    channel: Channel, question: bytes = b"?", *, timeout_s: float = PATIENCE_S
) -> tuple[Code, bool]:
    """The code of a call that fails, and whether it may have been understood."""
    with pytest.raises(CallFailed) as caught:
        await ask(channel, question, timeout_s=timeout_s)
    assert caught.value.details
    return caught.value.code, caught.value.sent


async def echo(session: Session) -> None:
    """Answers every request with itself."""
    while True:
        stream = await session.request()
        await session.answer(stream, bytes(session.bodies[stream][5:]))


def block(fields: list[tuple[str, str]], *, huffman: bool = True) -> bytes:
    return Encoder().encode([(name, value, True) for name, value in fields], huffman=huffman)


def whole(stream: int, body: bytes) -> bytes:
    return (
        frame(HEADERS, END_HEADERS, stream, block(BEGIN))
        + frame(DATA, 0, stream, message(body))
        + frame(HEADERS, END_HEADERS | END_STREAM, stream, block(DONE))
    )


# Windows.


@pytest.mark.parametrize("window", [0, 1, 100, 65_535, 1 << 20])
async def test_a_request_larger_than_the_peers_windows_is_sent_as_they_open(window: int) -> None:
    async def serve(session: Session) -> None:
        if not window:
            await session.until(lambda: bool(session.headers))
            session.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
            session.flush()
        await echo(session)

    async with calling(watched(serve, {SettingCodes.INITIAL_WINDOW_SIZE: window})) as (channel, _):
        questions = [bytes([number]) * (3_000 if window == 1 else 200_000) for number in range(4)]
        assert await asyncio.gather(*(ask(channel, question) for question in questions)) == questions
        assert await ask(channel) == b"?"


async def test_a_window_that_the_peer_shrinks_under_a_request_holds_it_back() -> None:
    async def serve(session: Session) -> None:
        session.held.add(1)
        await session.until(lambda: any(len(body) >= 1000 for body in session.bodies.values()))
        session.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
        session.http.increment_flow_control_window(100_000)
        session.flush()
        session.http.increment_flow_control_window(100_000, 1)
        session.held.clear()
        session.flush()
        await echo(session)

    async with calling(watched(serve, {SettingCodes.INITIAL_WINDOW_SIZE: 1000})) as (channel, _):
        assert await ask(channel, b"x" * 50_000) == b"x" * 50_000


async def test_frames_are_no_larger_than_the_peer_takes_and_as_large() -> None:
    sizes: list[int] = []

    async def serve(raw: Raw) -> None:
        await raw.greeted()
        setting = b"\x00\x05" + (40_000).to_bytes(4, "big") + b"\x00\x04" + (1 << 20).to_bytes(4, "big")
        raw.write(frame(SETTINGS, 0, 0, setting) + frame(UPDATE, 0, 0, (1 << 20).to_bytes(4, "big")))
        while True:
            kind, flags, stream, payload = await raw.frame()
            if kind == DATA:
                sizes.append(len(payload))
                if flags & END_STREAM:
                    raw.write(whole(stream, b"!"))

    async with calling(framed(serve, began=False)) as (channel, _):
        assert await ask(channel, b"x" * (100_000 - 5)) == b"!"
    assert sizes == [40_000, 40_000, 20_000]


async def test_an_answer_of_many_megabytes_comes_whole_and_so_does_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2, "WINDOW", 1 << 20)
    answer = bytes(range(256)) * (40 << 12)

    async def serve(session: Session) -> None:
        while True:
            await session.answer(await session.request(), answer)

    async with calling(watched(serve)) as (channel, _):
        for _ in range(2):
            assert await ask(channel) == answer


async def test_no_more_requests_are_under_way_than_the_peer_takes_at_once() -> None:
    async def serve(session: Session) -> None:
        while True:
            stream = await session.request()
            assert session.http.open_inbound_streams <= 2
            await asyncio.sleep(0.001)
            await session.answer(stream, bytes(session.bodies[stream][5:]))

    async with calling(watched(serve, {SettingCodes.MAX_CONCURRENT_STREAMS: 2})) as (channel, _):
        questions = [b"%d" % number for number in range(20)]
        waiting = asyncio.create_task(asyncio.wait_for(ask(channel, b"given up"), 0.0001))
        assert await asyncio.gather(*(ask(channel, question) for question in questions)) == questions
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_request_that_waited_in_vain_for_the_peer_to_take_it_was_not_sent() -> None:
    async def serve(session: Session) -> None:
        await session.ended()

    async with calling(watched(serve, {SettingCodes.MAX_CONCURRENT_STREAMS: 1})) as (channel, _):
        first = asyncio.create_task(ask(channel))
        await asyncio.sleep(0)
        assert await refused(channel, timeout_s=0.1) == (Code.DEADLINE_EXCEEDED, False)
        first.cancel()
        await asyncio.wait([first])


# Answers.


@pytest.mark.parametrize("size", [1, 4, 5, 6, 1000])
async def test_a_message_in_any_number_of_frames_is_one_answer(size: int) -> None:
    async def serve(session: Session) -> None:
        while True:
            await session.answer(await session.request(), b"answer" * 50, size=size)

    async with calling(watched(serve)) as (channel, _):
        for _ in range(3):
            assert await ask(channel) == b"answer" * 50


async def test_an_answer_that_comes_byte_by_byte_is_one_answer() -> None:
    async def serve(raw: Raw) -> None:
        while True:
            stream = await raw.request()
            for byte in frame(PING, 0, 0, b"12345678") + whole(stream, b"answer"):
                raw.write(bytes([byte]))
                await raw.drain()
                await asyncio.sleep(0)

    async with calling(framed(serve)) as (channel, _):
        for _ in range(3):
            assert await ask(channel) == b"answer"


async def test_headers_may_be_padded_have_a_priority_and_go_on_in_other_frames() -> None:
    async def serve(raw: Raw) -> None:
        while True:
            stream = await raw.request()
            begin, done = block(BEGIN), block(DONE, huffman=False)
            padded = b"\x05" + b"\x00\x00\x00\x00\x10" + begin + bytes(5)
            raw.write(frame(HEADERS, END_HEADERS | PADDED | PRIORITY, stream, padded))
            raw.write(frame(DATA, PADDED, stream, b"\x09" + message(b"answer") + bytes(9)))
            raw.write(frame(DATA, 0, stream) + frame(0x77, 0, stream, b"nobody knows this kind"))
            raw.write(frame(HEADERS, END_STREAM, stream, done[:3]))
            raw.write(frame(CONTINUATION, 0, stream) + frame(CONTINUATION, 0, stream, done[3:10]))
            raw.write(frame(CONTINUATION, END_HEADERS, stream, done[10:]))

    async with calling(framed(serve)) as (channel, _):
        for _ in range(3):
            assert await ask(channel) == b"answer"


async def test_a_peer_that_keeps_a_table_until_it_has_read_the_settings_is_understood() -> None:
    async def serve(raw: Raw) -> None:
        encoder = Encoder()

        async def answer(body: bytes) -> None:
            stream = await raw.request()
            raw.write(frame(HEADERS, END_HEADERS, stream, encoder.encode(BEGIN)))
            raw.write(frame(DATA, 0, stream, message(body)))
            raw.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, encoder.encode(DONE)))

        for number in range(4):
            await answer(b"%d" % number)
        encoder.header_table_size = 0
        raw.write(frame(SETTINGS, ACK, 0))
        for number in range(4, 8):
            await answer(b"%d" % number)
        await raw.ended()

    async with calling(framed(serve)) as (channel, peer):
        assert [await ask(channel) for _ in range(8)] == [b"%d" % number for number in range(8)]
        assert peer.connections == 1


async def test_what_a_peers_table_meant_before_is_not_what_it_means_now() -> None:
    async def serve(raw: Raw) -> None:
        encoder = Encoder()
        for status in ("0", "0", "5", "5", "0", "0"):  # The second of each pair is the same bytes in all.
            stream = await raw.request()
            raw.write(
                frame(HEADERS, END_HEADERS, stream, block(BEGIN)) + frame(DATA, 0, stream, message(b""))
            )
            trailers = encoder.encode([("grpc-status", status)])
            raw.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers))
        await raw.ended()

    async with calling(framed(serve)) as (channel, _):
        for status in (0, 5, 0):
            for _ in range(2):
                if status:
                    assert await refused(channel) == (Code(status), True)
                else:
                    assert await ask(channel) == b""


async def test_an_error_is_told_with_its_code_and_text_wherever_it_stands() -> None:
    text = "etcdserver: größer als erlaubt, 100%"
    told = "etcdserver: gr%C3%B6%C3%9Fer als erlaubt, 100%25"

    async def serve(session: Session) -> None:
        while True:
            stream = await session.request()
            trailers = [("grpc-status", "3"), ("grpc-message", told)]
            if stream % 4 == 1:
                session.http.send_headers(stream, [*BEGIN, *trailers], end_stream=True)
                session.flush()
            else:
                await session.answer(stream, b"half an answer", trailers)

    async with calling(watched(serve)) as (channel, peer):
        for _ in range(6):
            with pytest.raises(CallFailed) as caught:
                await ask(channel)
            failed = caught.value
            assert (failed.code, failed.details, failed.sent) == (Code.INVALID_ARGUMENT, text, True)
            assert str(failed) == f"INVALID_ARGUMENT: {text}"
        assert peer.connections == 1


async def test_a_hundred_different_errors_are_each_told_as_they_are() -> None:
    async def serve(session: Session) -> None:
        number = 0
        while True:
            stream = await session.request()
            number += 1
            done = [("grpc-status", "14"), ("grpc-message", f"error {number}")] if number % 2 else DONE
            await session.answer(stream, b"%d" % number, done)

    async with calling(watched(serve)) as (channel, _):
        for number in range(1, 200, 2):
            with pytest.raises(CallFailed) as caught:
                await ask(channel)
            assert caught.value.details == f"error {number}"
            assert await ask(channel) == b"%d" % (number + 1)


async def test_an_error_before_the_whole_request_ends_it_and_the_connection_goes_on() -> None:
    async def serve(session: Session) -> None:
        session.held.add(1)
        await session.until(lambda: bool(session.bodies))
        trailers = [*BEGIN, ("grpc-status", "8"), ("grpc-message", "too large")]
        session.http.send_headers(1, trailers, end_stream=True)
        session.flush()
        await session.until(lambda: 1 in session.resets)
        await echo(session)

    async with calling(watched(serve, {SettingCodes.INITIAL_WINDOW_SIZE: 100})) as (channel, peer):
        assert await refused(channel, b"x" * 1000) == (Code.RESOURCE_EXHAUSTED, True)
        assert await ask(channel, b"y" * 1000) == b"y" * 1000
        assert peer.connections == 1


def odd(begin: list[tuple[str, str]], body: bytes, done: list[tuple[str, str]]) -> bytes:
    return (
        frame(HEADERS, END_HEADERS, 1, block(begin))
        + frame(DATA, 0, 1, body)
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(done))
    )


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (odd([(":status", "503")], b"", DONE), Code.UNKNOWN),
        (odd([(":status", "200"), ("content-type", "text/html")], b"<html>", DONE), Code.UNKNOWN),
        (odd([("content-type", "application/grpc")], message(b""), DONE), Code.UNKNOWN),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, block([(":status", "404")])), Code.UNKNOWN),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BEGIN)), Code.UNKNOWN),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, block([*BEGIN, *DONE])), Code.INTERNAL),
        (odd(BEGIN, message(b""), [("grpc-status", "seven")]), Code.UNKNOWN),
        (odd(BEGIN, message(b""), [("grpc-status", "99")]), Code.UNKNOWN),
        (odd(BEGIN, b"", DONE), Code.INTERNAL),
        (odd(BEGIN, message(b"short")[:-1], DONE), Code.INTERNAL),
        (odd(BEGIN, message(b"one") + message(b"two"), DONE), Code.INTERNAL),
        (odd(BEGIN, b"\x01" + message(b"compressed")[1:], DONE), Code.INTERNAL),
        (frame(HEADERS, END_HEADERS, 1, block(BEGIN)) + frame(DATA, END_STREAM, 1), Code.UNAVAILABLE),
    ],
)
async def test_what_is_no_answer_of_grpcs_fails_that_call_alone(answer: bytes, code: Code) -> None:
    async def serve(raw: Raw) -> None:
        await raw.request()
        raw.write(answer)
        while True:
            raw.write(whole(await raw.request(), b"well"))

    async with calling(framed(serve)) as (channel, peer):
        assert await refused(channel) == (code, True)
        assert await ask(channel) == b"well"
        assert peer.connections == 1


async def test_a_provisional_answer_is_waited_beyond() -> None:
    async def serve(raw: Raw) -> None:
        stream = await raw.request()
        raw.write(frame(HEADERS, END_HEADERS, stream, block([(":status", "103")])))
        raw.write(whole(stream, b"well"))
        await raw.ended()

    async with calling(framed(serve)) as (channel, _):
        assert await ask(channel) == b"well"


# What a peer may not do.

_tabled = Encoder()
GARBAGE = {
    "a frame too large": frame(DATA, 0, 1, bytes((1 << 14) + 1)),
    "data on no stream": frame(DATA, 0, 0, b"x"),
    "data on a stream never begun": frame(DATA, 0, 3, b"x"),
    "headers on a stream of the peer's": frame(HEADERS, END_HEADERS, 2, block(BEGIN)),
    "headers that are none": frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
    "an entry of a table that is empty": frame(HEADERS, END_HEADERS, 1, b"\xfe"),
    "an entry of a table that was given up": b"".join(
        frame(HEADERS, END_HEADERS, 1, _tabled.encode(BEGIN)) for _ in range(2)
    ),
    "a table larger than allowed": frame(HEADERS, END_HEADERS, 1, b"\x3f\xe1\x7f\x88"),
    "padding beyond the frame": frame(DATA, PADDED, 1, b"\x05abc"),
    "padding of an empty frame": frame(HEADERS, PADDED | END_HEADERS, 1),
    "a frame within headers": frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, bytes(8)),
    "headers that go on elsewhere": frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 3, b""),
    "headers that go on without a beginning": frame(CONTINUATION, END_HEADERS, 1, b""),
    "headers without end": frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, bytes(1 << 14)) * 5,
    "settings of a strange size": frame(SETTINGS, 0, 0, b"12345"),
    "settings of a stream": frame(SETTINGS, 0, 1),
    "a window beyond all bounds": frame(SETTINGS, 0, 0, b"\x00\x04\xff\xff\xff\xff"),
    "frames too small": frame(SETTINGS, 0, 0, b"\x00\x05\x00\x00\x00\x01"),
    "a promise": frame(5, END_HEADERS, 1, b"\x00\x00\x00\x02" + block(BEGIN)),
    "a ping of a strange size": frame(PING, 0, 0, b"123"),
    "a reset of a strange size": frame(RESET, 0, 1, b"123"),
    "a reset of a stream never begun": frame(RESET, 0, 5, bytes(4)),
    "a farewell of a strange size": frame(GOAWAY, 0, 0, b"123"),
    "an update of nothing": frame(UPDATE, 0, 1, bytes(4)),
    "an update of a strange size": frame(UPDATE, 0, 0, b"1"),
    "an update beyond all bounds": frame(UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    "text": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "the end": b"",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_after_what_http2_does_not_allow_the_connection_is_made_anew(garbage: bytes) -> None:
    served = 0

    async def serve(raw: Raw) -> None:
        nonlocal served
        served += 1
        if served > 1:
            raw.write(whole(await raw.request(), b"well"))
            await raw.ended()
            return
        await raw.request()
        raw.write(frame(SETTINGS, ACK, 0) + garbage)
        if garbage:
            await raw.ended()

    async with calling(framed(serve)) as (channel, peer):
        with pytest.raises(CallFailed, match="does not keep to HTTP/2" if garbage else "closed") as caught:
            await ask(channel)
        assert (caught.value.code, caught.value.sent) == (Code.UNAVAILABLE, True)
        assert await patiently(channel) == b"well"
        assert peer.connections == 2


async def patiently(channel: Channel) -> bytes:
    """An answer, as soon as the channel connects again."""
    while True:
        try:
            return await ask(channel)
        except CallFailed as failed:
            assert not failed.sent
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "garbage", [GARBAGE["text"], b"", frame(PING, 0, 0, bytes(8)), frame(SETTINGS, ACK, 0)]
)
async def test_whoever_does_not_speak_http2_is_sent_no_request(garbage: bytes) -> None:
    async def serve(raw: Raw) -> None:
        await raw.greeted()
        raw.write(garbage)
        if garbage:
            await raw.ended()

    async with calling(framed(serve, began=False)) as (channel, _):
        assert await refused(channel) == (Code.UNAVAILABLE, False)


async def test_nobody_there_is_told_at_once_and_nothing_was_sent() -> None:
    channel = Channel(f"127.0.0.1:{free_port()}", None, "")
    assert await refused(channel) == (Code.UNAVAILABLE, False)
    await channel.close()


async def test_a_peer_that_never_greets_is_sent_no_request() -> None:
    async def serve(raw: Raw) -> None:
        await raw.ended()

    async with calling(framed(serve, began=False)) as (channel, _):
        assert await refused(channel, timeout_s=0.1) == (Code.DEADLINE_EXCEEDED, False)


async def test_all_who_call_share_one_attempt_to_connect_and_fail_with_it() -> None:
    async def serve(raw: Raw) -> None:
        await raw.greeted()
        await asyncio.sleep(0.05)

    async with calling(framed(serve, began=False)) as (channel, peer):
        for _ in range(20):
            results = await asyncio.gather(*(refused(channel) for _ in range(10)))
            assert {*results} == {(Code.UNAVAILABLE, False)}
        assert peer.connections <= 3


# Farewells.


async def test_a_peer_that_goes_away_sees_through_what_it_has_taken_and_gets_no_more() -> None:
    served = 0

    async def serve(session: Session) -> None:
        nonlocal served
        served += 1
        if served > 1:
            await echo(session)
        streams = [await session.request() for _ in range(3)]
        goaway = frame(GOAWAY, 0, 0, streams[1].to_bytes(4, "big") + bytes(4) + b"bye")
        session._writer.write(goaway)
        await asyncio.sleep(0.01)
        for stream in streams[:2]:
            await session.answer(stream, b"seen through")
        await session.ended()

    async with calling(watched(serve)) as (channel, peer):
        calls = [asyncio.create_task(ask(channel)) for _ in range(3)]
        with pytest.raises(CallFailed, match="going away with code 0: bye") as caught:
            await calls[2]
        assert not caught.value.sent
        assert await patiently(channel) == b"?"
        assert await asyncio.gather(*calls[:2]) == [b"seen through"] * 2
        assert peer.connections == 2


@pytest.mark.parametrize(("code", "sent"), [(7, False), (8, True), (2, True), (11, True)])
async def test_of_streams_that_the_peer_resets_only_those_it_refused_were_not_sent(
    code: int, sent: bool
) -> None:
    async def serve(session: Session) -> None:
        session.http.reset_stream(await session.request(), code)
        session.flush()
        await echo(session)

    async with calling(watched(serve)) as (channel, peer):
        assert await refused(channel) == (Code.UNAVAILABLE, sent)
        assert await ask(channel) == b"?"
        assert peer.connections == 1


async def test_of_a_connection_that_breaks_only_requests_that_had_left_whole_were_sent() -> None:
    async def serve(session: Session) -> None:
        session.held |= {1, 3}
        await session.until(lambda: len(session.bodies) == 2 and bool(session.whole))

    async with calling(watched(serve, {SettingCodes.INITIAL_WINDOW_SIZE: 100})) as (channel, _):
        results = await asyncio.gather(refused(channel, b"x" * 200), refused(channel, b"x" * 20))
        assert [*results] == [(Code.UNAVAILABLE, False), (Code.UNAVAILABLE, True)]


# Giving up.


async def test_a_call_given_up_is_reset_and_the_connection_goes_on() -> None:
    async def serve(session: Session) -> None:
        given_up = [await session.request() for _ in range(2)]
        await session.until(lambda: sorted(session.resets) == given_up)
        await echo(session)

    async with calling(watched(serve)) as (channel, peer):
        cancelled = asyncio.create_task(ask(channel))
        assert await refused(channel, timeout_s=1.0) == (Code.DEADLINE_EXCEEDED, True)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await ask(channel) == b"?"
        assert peer.connections == 1


async def test_what_comes_for_a_call_given_up_is_given_to_no_other() -> None:
    async def serve(raw: Raw) -> None:
        late = await raw.request()
        while (await raw.frame())[0] != RESET:
            pass
        raw.write(whole(late, b"late"))
        raw.write(whole(await raw.request(), b"in time"))
        await raw.ended()

    async with calling(framed(serve)) as (channel, peer):
        assert await refused(channel, timeout_s=1.0) == (Code.DEADLINE_EXCEEDED, True)
        assert await ask(channel) == b"in time"
        assert peer.connections == 1


async def test_closing_fails_what_is_under_way_and_what_comes_after() -> None:
    async def serve(session: Session) -> None:
        await session.ended()

    async with calling(watched(serve)) as (channel, _):
        answers = await channel.ask(METHOD, b"", token="", timeout_s=PATIENCE_S)
        under_way = asyncio.create_task(refused(channel))
        await asyncio.sleep(0)
        await channel.close()
        assert await under_way == (Code.UNAVAILABLE, True)
        with pytest.raises(CallFailed):
            await answers.read()
        assert await refused(channel) == (Code.CANCELLED, False)


async def test_a_token_goes_with_a_call_and_a_new_one_with_the_next() -> None:
    tokens: list[str | None] = []

    async def serve(session: Session) -> None:
        while True:
            stream = await session.request()
            tokens.append(session.headers[stream].get("token"))
            await session.answer(stream, b"")

    given = ["", "short", "long" * 1000, "x" * 126, "x" * 127, "x" * 128, ""]
    async with calling(watched(serve)) as (channel, _):
        for token in given:
            await channel.call(METHOD, b"", token=token, timeout_s=PATIENCE_S)
    assert tokens == [token or None for token in given]


# Answers without end.


async def test_answers_are_read_one_by_one_however_they_are_cut() -> None:
    sent = [b"x" * size for size in (0, 1, 5, 300, 20_000, 1)]

    async def serve(session: Session) -> None:
        await session.until(lambda: bool(session.bodies))
        assert session.headers[1]["hasleader"] == "true"
        session.http.send_headers(1, BEGIN)
        await session.data(1, b"".join(message(body) for body in sent), 7)
        session.http.send_headers(1, DONE, end_stream=True)
        session.flush()
        await session.ended()

    async with calling(watched(serve)) as (channel, _):
        answers = await channel.ask(METHOD, b"watch", token="", timeout_s=PATIENCE_S)
        assert [await answers.read() for _ in sent] == sent
        assert await answers.read() is None
        assert await answers.read() is None


async def test_whoever_does_not_read_holds_back_that_stream_alone() -> None:
    piece = b"x" * 100_000
    sent = 0

    async def serve(session: Session) -> None:
        nonlocal sent
        await session.until(lambda: bool(session.bodies))
        session.http.send_headers(1, BEGIN)
        while session.http.local_flow_control_window(1) > len(piece) + 5:
            await session.data(1, message(piece))
            sent += 1
        for _ in range(2):  # Whatever was to be said of the window has been said when the second comes.
            await session.answer(await session.request(), b"not held back")
        assert session.http.local_flow_control_window(1) <= len(piece) + 5
        await session.data(1, message(piece) * 2)
        session.http.send_headers(1, DONE, end_stream=True)
        session.flush()
        await session.ended()

    async with calling(watched(serve)) as (channel, _):
        answers = await channel.ask(METHOD, b"watch", token="", timeout_s=PATIENCE_S)
        assert [await ask(channel) for _ in range(2)] == [b"not held back"] * 2
        assert sent == http2.STREAM_WINDOW // (len(piece) + 5)
        for _ in range(sent + 2):
            assert await answers.read() == piece
        assert await answers.read() is None


async def test_a_message_larger_than_the_window_is_read() -> None:
    large = bytes(http2.STREAM_WINDOW + 1000)

    async def serve(session: Session) -> None:
        await session.until(lambda: bool(session.bodies))
        session.http.send_headers(1, BEGIN)
        await session.data(1, message(b"small") + message(large) + message(b"small"))
        await session.ended()

    async with calling(watched(serve)) as (channel, _):
        answers = await channel.ask(METHOD, b"watch", token="", timeout_s=PATIENCE_S)
        assert [await answers.read() for _ in range(3)] == [b"small", large, b"small"]


async def test_cancelled_answers_are_reset_whoever_waits_is_let_go_and_the_connection_goes_on() -> None:
    async def serve(session: Session) -> None:
        await session.until(lambda: bool(session.bodies))
        session.http.send_headers(1, BEGIN)
        session.flush()
        await session.until(lambda: session.resets == [1])
        await echo(session)

    async with calling(watched(serve)) as (channel, peer):
        answers = await channel.ask(METHOD, b"watch", token="", timeout_s=PATIENCE_S)
        reading = asyncio.create_task(answers.read())
        await asyncio.sleep(0.01)
        answers.cancel()
        answers.cancel()
        assert await reading is None
        assert await ask(channel) == b"?"
        assert peer.connections == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (odd([(":status", "503")], b"", DONE), Code.UNKNOWN),
        (odd(BEGIN, b"", [("grpc-status", "14"), ("grpc-message", "no leader")]), Code.UNAVAILABLE),
        (odd(BEGIN, message(b"short")[:-1], DONE), Code.INTERNAL),
        (odd(BEGIN, b"\x01" + message(b"compressed")[1:], DONE), Code.INTERNAL),
        (frame(RESET, 0, 1, bytes(4)), Code.UNAVAILABLE),
        (b"", Code.UNAVAILABLE),
    ],
)
async def test_whoever_reads_is_told_how_answers_end(answer: bytes, code: Code) -> None:
    async def serve(raw: Raw) -> None:
        while (await raw.frame())[0] != DATA:
            pass
        if answer:
            raw.write(frame(HEADERS, END_HEADERS, 1, block(BEGIN)) if answer[3] == RESET else b"")
            raw.write(answer)
            await raw.ended()

    async with calling(framed(serve)) as (channel, _):
        answers = await channel.ask(METHOD, b"watch", token="", timeout_s=PATIENCE_S)
        for _ in range(2):
            with pytest.raises(CallFailed) as caught:
                await answers.read()
            assert caught.value.code is code


# Signs of life.


async def test_a_peer_that_falls_silent_is_found_out_and_one_that_answers_pings_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2, "QUIET_S", 0.05)
    monkeypatch.setattr(http2, "PONG_S", 1.0)
    pinged = 0

    async def serve(raw: Raw) -> None:
        nonlocal pinged
        while pinged < 5:
            kind, _, _, payload = await raw.frame()
            if kind == PING:
                pinged += 1
                raw.write(frame(PING, ACK, 0, payload))
        await raw.ended()

    async with calling(framed(serve)) as (channel, _):
        answers = await channel.ask(METHOD, b"watch", token="", timeout_s=PATIENCE_S)
        with pytest.raises(CallFailed, match="silent") as caught:
            await answers.read()
        assert caught.value.code is Code.UNAVAILABLE
        assert pinged == 5


async def test_a_peer_that_is_not_waited_for_is_not_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "QUIET_S", 0.01)

    sessions: list[Session] = []

    async def serve(session: Session) -> None:
        sessions.append(session)
        await echo(session)

    async with calling(watched(serve)) as (channel, _):
        assert await ask(channel) == b"?"
        await asyncio.sleep(0.1)
        assert await ask(channel) == b"?"
    assert [session.pings for session in sessions] == [0]


async def test_pings_are_answered_though_nothing_else_is_to_be_said() -> None:
    async def serve(raw: Raw) -> None:
        stream = await raw.request()
        for number in range(3):
            sent = b"number %d" % number
            raw.write(frame(PING, 0, 0, sent))
            while (got := await raw.frame())[0] != PING:
                pass
            assert got[1:] == (ACK, 0, sent)
        raw.write(whole(stream, b"well"))
        await raw.ended()

    async with calling(framed(serve)) as (channel, _):
        assert await ask(channel) == b"well"


# Where a peer is.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_of_either_kind_and_a_name_are_connected_to(host: str) -> None:
    try:
        async with calling(watched(echo), host) as (channel, peer):
            assert await ask(channel) == b"?"
            named = Channel(f"localhost:{peer.endpoint.rpartition(':')[2]}", None, "")
            if host == "127.0.0.1":  # Whatever else the name may mean is tried, and passed over.
                assert await ask(named) == b"?"
            await named.close()
    except OSError:
        pytest.skip(f"this machine has no {host}")


async def test_a_name_that_nobody_knows_is_told() -> None:
    for name in ("nobody.invalid", "x" * 70, "a..b"):
        channel = Channel(f"{name}:2379", None, "")
        assert await refused(channel) == (Code.UNAVAILABLE, False)
        await channel.close()


async def test_over_tls_only_who_is_the_named_one_and_offers_http2_is_sent_a_request(tmp_path: Path) -> None:
    made = certificates(tmp_path / "pki")
    context = ssl.create_default_context(cafile=made["ca"])
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(made["etcd.test"], made["etcd.test-key"])
    for offered, name, answered in (
        (["h2"], "etcd.test", True),
        (["h2"], "", False),
        (["h2"], "other.test", False),
        (["http/1.1"], "etcd.test", False),
    ):
        theirs.set_alpn_protocols(offered)
        async with asyncio.timeout(PATIENCE_S), serving(watched(echo), context=theirs) as peer:
            channel = Channel(peer.endpoint, context, name)
            if answered:
                assert await ask(channel, b"x" * 100_000) == b"x" * 100_000
            else:
                assert await refused(channel) == (Code.UNAVAILABLE, False)
            await channel.close()
