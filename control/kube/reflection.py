"""The course of one kind's list and watch: decides the next request and the next pause. Pure.

A pass brings every object once: as the first part of a watch (WatchList) where the server has that,
else by pages. Then the watch goes on from the version that the pass ended with. A new pass begins
when the server has forgotten that version, when a watch is silent for longer than its bookmarks
allow (a server that was set back knows nothing of our version, and says nothing), and at times,
to compare. All that is known stays in force meanwhile; a pass that ends takes out what it has not
brought. A list whose version expired on the way goes on by the token in that answer, but it is
torn: it proves nothing gone, and another pass follows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final

from control.kit.backoff import Backoff
from control.kit.errors import ControlError, MeshError
from control.kube.errors import ApiError, EventError, TooLargeAnswer, Unreachable, UnreadableAnswer

Name = tuple[str, str]  # namespace, name

PAGE_MAX: Final = 500
SILENCE_S: Final = 75.0  # a quiet watch gets a bookmark every 60 s
BEGIN_SILENCE_S: Final = 30.0  # a server that does not know WatchList is silent instead
WATCH_S: Final = (
    240,
    480,
)  # spread, so that the watches of all kinds and replicas do not end at once
COMPARE_S: Final = 1800.0
ABSENT_S: Final = 5.0  # a kind that the server does not have is looked for this often
AGAIN_S: Final = 1.0  # until a first look that proved nothing is repeated
RETRY_S, RETRY_MAX_S = 0.5, 10.0
STREAM_FAILURES_MAX: Final = 3  # then a pass goes by pages
ABSENCES_MIN: Final = 2  # answers that prove nothing by themselves
QUICK_S: Final = 1.0  # a watch that ends sooner, without a word, has not worked
END_MARK: Final = "k8s.io/initial-events-end"
# Answers that mean: the request itself is not understood.
_NOT_UNDERSTOOD = frozenset({400, 405, 406, 415, 422, 501})


class Phase(Enum):
    STREAM = "stream"  # the first part of a watch brings everything
    PAGES = "pages"
    FOLLOW = "follow"


class Definition(Enum):
    """The server's word on the CRD of a kind that it does not serve."""

    NONE = "none"
    THERE = "there"  # not served yet, or not in our versions
    HIDDEN = "hidden"  # we may not ask


class NotServed(ControlError):
    """The kind is defined, and the server does not have it: it must not count as empty."""

    reason: ClassVar[str] = "kube_not_served"


@dataclass(frozen=True, slots=True)
class KubeRequest:
    """`path` is a number: of the kind's paths, the one to ask."""

    path: int
    parameters: Mapping[str, str]
    is_watch: bool = False


@dataclass(slots=True)
class Reflection:
    """`paths`: versions under which a server may have the kind, the best first. `may_be_absent` is
    for kinds of a CRD, which somebody may install later."""

    paths: int = 1
    may_be_absent: bool = False
    selector: Mapping[str, str] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=lambda: Backoff(RETRY_S, RETRY_MAX_S, jitter=0.5))
    random: random.Random = field(default_factory=random.Random)
    begin_silence_s: float = BEGIN_SILENCE_S
    follow_silence_s: float = SILENCE_S
    phase: Phase = Phase.STREAM
    is_synced: bool = False
    page_max: int = PAGE_MAX
    version: str = ""
    seen: set[Name] = field(default_factory=set)  # in the pass that is under way
    passes: int = 0
    trouble: MeshError | None = None  # the last failure, until something works again
    failures: int = 0  # in a row
    is_in_doubt: bool = False  # its CRD has to be asked for
    failures_total: int = 0
    _streams: bool = True
    _token: str = ""
    _is_torn: bool = False
    _again: bool = False  # a pass has to be made once more
    _path: int = 0
    _absences: int = 0
    _compare_at_s: float = 0.0
    _began_s: float = 0.0
    _last_s: float = 0.0  # when anything came last
    _heard: int = 0  # lines of the watch that is under way

    def next(self, now_s: float) -> KubeRequest:
        """The request to make now."""
        if self.phase is Phase.FOLLOW and now_s >= self._compare_at_s:
            self._begin()
        self._began_s = self._last_s = now_s
        self._heard = 0
        parameters = dict(self.selector)
        if self.phase is Phase.PAGES:
            parameters["limit"] = str(self.page_max)
            if self._token:
                parameters["continue"] = self._token
            return KubeRequest(self._path, parameters)
        if self.phase is Phase.STREAM:
            self.seen.clear()
            parameters["sendInitialEvents"] = "true"
            parameters["resourceVersionMatch"] = "NotOlderThan"
        else:
            parameters["resourceVersion"] = self.version
        parameters["watch"] = parameters["allowWatchBookmarks"] = "true"
        parameters["timeoutSeconds"] = str(self.random.randint(*WATCH_S))
        return KubeRequest(self._path, parameters, is_watch=True)

    @property
    def silence_s(self) -> float:
        """Longest silence of a watch, as it is now: it changes with the mark."""
        return self.begin_silence_s if self.phase is Phase.STREAM else self.follow_silence_s

    def _begin(self, phase: Phase = Phase.STREAM) -> None:
        """A new pass."""
        self.phase = phase if self._streams else Phase.PAGES
        self._token, self._is_torn = "", False
        self.seen.clear()

    # Answers

    def opened(self) -> None:
        """The server has taken up a watch; one that goes on from a version works by that."""
        if self.phase is Phase.FOLLOW:
            self.trouble, self.failures = None, 0

    def page(self, version: str, token: str, now_s: float) -> bool:
        """A page came whole, its names are in `seen`. True: the pass is over, and what it has not
        seen is gone."""
        self._works()
        self._token = token
        if token:
            return False
        if self._is_torn:
            self._begin(Phase.PAGES)
            self._again = True
            return False
        self._synced(version, now_s)
        return True

    def line(self, version: str, is_end: bool, now_s: float) -> bool:
        """A line of a watch came. True: it ends the pass, and what that has not seen is gone."""
        self._heard += 1
        self._last_s = now_s
        if self.phase is Phase.STREAM:
            if is_end:
                self._works()
                self._synced(version, now_s)
            return is_end
        self._works()
        self.version = version or self.version
        return False

    def _synced(self, version: str, now_s: float) -> None:
        self.phase, self.version = Phase.FOLLOW, version
        self.is_synced = True
        self.passes += 1
        self._absences = 0
        self._compare_at_s = now_s + COMPARE_S * self.random.uniform(0.8, 1.2)

    def _works(self) -> None:
        self.backoff.reset()
        self.trouble, self.failures = None, 0

    # Ends and failures; each answers with the pause before the next request

    def ended(self, now_s: float) -> float:
        """The answer ended in order."""
        if self.phase is Phase.PAGES:
            again, self._again = self._again, False
            return RETRY_S * self.random.uniform(0.5, 1.5) if again else 0.0
        if self.phase is Phase.STREAM:
            self._begin(Phase.PAGES)  # it ended before the mark
            return self.backoff.next_s()
        if now_s - self._began_s >= QUICK_S:
            return 0.0
        return RETRY_S * self.random.random() if self._heard else self.backoff.next_s()

    def failed(self, error: MeshError, now_s: float) -> float:
        """The request failed, or its answer on the way."""
        if isinstance(error, ApiError) and error.code == 404 and self._path + 1 < self.paths:
            self._path += 1  # an answer like another: the kind has an older version
            self._begin()
            return 0.0
        self.failures += 1
        self.failures_total += 1
        self.trouble = error
        match error:
            case ApiError(code=404):
                return self._absent()
            case ApiError():
                pause_s = self._refused(error)
                return max(pause_s, error.retry_after_s or 0.0)
            case TooLargeAnswer() if self.phase is Phase.PAGES:
                self.page_max = max(1, self.page_max // 2)
            case TooLargeAnswer() | UnreadableAnswer():
                self._begin(Phase.PAGES)
            case Unreachable():
                self._broken_off(now_s)
        return self.backoff.next_s()

    def _broken_off(self, now_s: float) -> None:
        """No answer, no end of it, or silence. Silence says that the server may know nothing of
        our version, or nothing of WatchList."""
        is_silent = now_s - self._last_s >= self.silence_s
        if self.phase is Phase.STREAM and (is_silent or self.failures >= STREAM_FAILURES_MAX):
            self._begin(Phase.PAGES)
        elif self.phase is Phase.FOLLOW and is_silent:
            self._begin()

    def _refused(self, error: ApiError) -> float:
        is_senseless = error.code in _NOT_UNDERSTOOD
        match self.phase:
            case Phase.PAGES if error.is_expired and error.token:
                self._token, self._is_torn = error.token, True
                return 0.0
            case Phase.PAGES if error.is_expired or is_senseless:
                self._begin(Phase.PAGES)
            case Phase.STREAM if is_senseless:
                self._streams = False
                self._begin()
                return 0.0
            case Phase.STREAM if isinstance(error, EventError) or error.is_expired:
                self._begin(Phase.PAGES)
            case Phase.FOLLOW:
                # Too old, too new (504), not a version; an ERROR event may mean any of them.
                is_lost = error.is_expired or is_senseless or error.code == 504
                if is_lost or isinstance(error, EventError):
                    self._begin()
        return self.backoff.next_s()

    def _absent(self) -> float:
        """The server does not have the kind, in any version. Its CRD is asked for: a server that
        starts, or something before it, says the same of kinds that it has."""
        self._path = 0
        self._begin()
        self.is_in_doubt = self.may_be_absent
        return self.backoff.next_s()

    def defined(self, found: Definition, name: str) -> float:
        """The answer about the CRD of this name; the pause to make."""
        self.is_in_doubt = False
        if found is Definition.THERE:
            self._absences = 0
            self.trouble = NotServed(f"{name} is there, and not served in a version that we read")
            return self.backoff.next_s()
        # Without its definition a kind has no objects: the server deletes them first.
        self._absences += 1 if found is Definition.HIDDEN else ABSENCES_MIN
        if not self.is_absent:
            return AGAIN_S if not self.passes else ABSENT_S
        self.failures_total -= self.failures
        self.trouble, self.failures = None, 0
        self.is_synced = True
        return ABSENT_S * self.random.uniform(0.8, 1.2)

    @property
    def is_absent(self) -> bool:
        """True once it is certain enough that there is nothing of this kind."""
        return self._absences >= ABSENCES_MIN
