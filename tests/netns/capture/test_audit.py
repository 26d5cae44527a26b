"""The kernel compared with belief: whatever is taken away is found, named and put back."""

from __future__ import annotations

import struct
from pathlib import Path

from agent.datapath import folder, pods
from agent.datapath.attach import Link
from agent.datapath.audit import Difference, LostPart
from agent.datapath.programs import ROOT_HOOKS
from control.model.address import mapped, parse_address
from tests.netns.capture.test_life import assert_captured
from tests.support.kernel.datapath import Bed
from tests.support.kernel.netns import Pod

UID = "uid-app"


def compared(bed: Bed) -> list[Difference]:
    return [*bed.node.audit.node(), *bed.node.audit.pod(UID)]


def ours(bed: Bed) -> folder.PinFolder:
    (found,) = folder.versions(bed.pin_root)
    return found


def detach(pin: Path) -> None:
    """As `bpftool link detach` does: the pin stays."""
    with Link.open(pin) as link:
        link.detach()


def test_a_kernel_as_it_should_be_has_no_difference(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, UID, direct=True)
    assert compared(bed) == []
    assert bed.node.is_exempt(bed.ztunnel_cgroup)


def test_a_hook_is_put_back(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, UID)
    for way in (folder.unpin, detach):
        for hook in ROOT_HOOKS:
            way(ours(bed).links / hook)
            assert compared(bed) == [Difference(LostPart.HOOK, hook)]
            assert compared(bed) == []
    assert_captured(pod, listeners.outbound)


def test_entries_are_put_back(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, UID)
    (captured,) = bed.node.captured()
    bed.node._maps["pods"].delete(pods.cookie_key(captured.cookie))
    bed.node._maps["locals"].delete(mapped(parse_address(pod.ip4)))
    assert compared(bed) == [
        Difference(LostPart.ADDRESS, pod.ip4),
        Difference(LostPart.ENTRY, str(captured.cookie), UID),
    ]
    assert compared(bed) == []
    assert_captured(pod, listeners.outbound)


def test_an_entry_of_nobody_is_told_and_can_be_forgotten(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, UID)
    (captured,) = bed.node.captured()
    value = bytes(pods.pod_value(captured))
    bed.node._maps["pods"].update(struct.pack("=Q", 2**60), value)
    assert compared(bed) == [Difference(LostPart.STRANGER, str(2**60))]
    bed.node.forget_entry(2**60)
    assert compared(bed) == []


def test_a_pod_that_lost_a_pin_is_whole_after_a_new_capture(bed: Bed, pod: Pod, far: Pod) -> None:
    listeners = bed.capture(pod, UID)
    for name, kind, what in (
        ("link", LostPart.LINK, "link"),
        ("listeners", LostPart.LISTENERS, "96 slots"),
        ("plaintext", LostPart.PINS, "plaintext"),
        ("probes", LostPart.PINS, "probes"),
        ("refused", LostPart.PINS, "refused"),
        ("about", LostPart.PINS, "about"),
    ):
        folder.unpin(ours(bed).pods / pods.pin_name(UID) / name)
        assert compared(bed) == [Difference(kind, what, UID)]
        bed.capture(pod, UID, listeners)
        assert compared(bed) == []
        assert_captured(pod, listeners.outbound)
        with far.dial((pod.ip4, 15008)):
            listeners.hbone.accept()[0].close()


def test_a_link_that_was_detached_is_made_anew(bed: Bed, pod: Pod, far: Pod) -> None:
    listeners = bed.capture(pod, UID)
    detach(ours(bed).pods / pods.pin_name(UID) / "link")
    assert compared(bed) == [Difference(LostPart.LINK, "link", UID)]
    bed.capture(pod, UID, listeners)
    assert compared(bed) == []
    with far.dial((pod.ip4, 15008)):
        listeners.hbone.accept()[0].close()


def test_closed_listeners_are_missed(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, UID)
    listeners.hbone.close()
    assert compared(bed) == [Difference(LostPart.LISTENERS, "32 slots", UID)]


def test_a_bpffs_that_was_emptied_is_filled_again(bed: Bed, pod: Pod) -> None:
    """As after a second mount over it: all pins are gone, and with the links their programs."""
    listeners = bed.capture(pod, UID)
    for version in folder.versions(bed.pin_root):
        version.remove()
    found = compared(bed)
    assert {each.kind for each in found} == {
        LostPart.MAP_PIN,
        LostPart.HOOK,
        LostPart.PINS,
        LostPart.LINK,
        LostPart.LISTENERS,
    }
    assert not bed.node.is_exempt(bed.ztunnel_cgroup)
    bed.node.exempt(bed.ztunnel_cgroup)
    bed.capture(pod, UID, listeners)
    assert compared(bed) == []
    assert_captured(pod, listeners.outbound)
    bed.node.close()
    bed.node = bed.reopened()
    assert [each.uid for each in bed.node.captured()] == [UID]
    assert compared(bed) == []
