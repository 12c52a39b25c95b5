"""A signal is noted; the step in hand is finished."""

import signal
import threading

import pytest

from batcli.core.errors import ExitCode, Stopped
from batcli.core.signals import defer_signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_the_first_signal_waits(number, code):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    steps = []

    def work() -> None:
        with defer_signals() as request:
            while True:
                request.check()
                signal.raise_signal(number)
                steps.append(bool(request))  # the step goes on

    with pytest.raises(Stopped) as caught:
        work()
    assert steps == [True]
    assert caught.value.exit_code == code == 128 + number
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_second_signal_is_obeyed_at_once():
    steps = []

    def work() -> None:
        with defer_signals():
            for step in range(3):
                signal.raise_signal(signal.SIGINT)
                steps.append(step)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, a shell has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == [0]


def test_other_threads_get_no_signals_and_no_error():
    found = []

    def work():
        with defer_signals() as request:
            request.check()
            found.append(bool(request))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
