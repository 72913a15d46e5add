"""Certificates that renew themselves: the decision as a table, then months of it, with everybody late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from inflight_operator import tls
from inflight_operator.decide import rotation
from inflight_operator.decide.rotation import Step
from inflight_operator.installation import issue
from inflight_operator.installation.certificates import AUTHORITY, ROUTERS, Certificates
from inflight_operator.kube.client import ApiError
from memory_kube import MemoryKube

LIFETIME = 90.0
START = datetime(2026, 1, 1, tzinfo=UTC)
HOST = "inflight-operator.system.svc"


@pytest.mark.parametrize(
    ("current", "following", "step"),
    [
        pytest.param(None, None, Step.FOUND, id="a new installation"),
        pytest.param(360.0, None, Step.KEEP, id="young"),
        pytest.param(180.0, None, Step.KEEP, id="half its time is left"),
        pytest.param(179.0, None, Step.PREPARE, id="less than half is left"),
        pytest.param(170.0, 351.0, Step.KEEP, id="the next one is not known everywhere yet"),
        pytest.param(90.0, 270.0, Step.PROMOTE, id="the next one is known for a whole lifetime"),
        pytest.param(-1.0, 300.0, Step.PROMOTE, id="expired while nobody looked, the next one is there"),
        pytest.param(-1.0, None, Step.FOUND, id="expired while nobody looked"),
        pytest.param(-1.0, -1.0, Step.FOUND, id="both expired"),
        pytest.param(100.0, -1.0, Step.PREPARE, id="the next one expired before it was used"),
    ],
)
def test_what_becomes_of_the_authority(current: float | None, following: float | None, step: Step) -> None:
    assert rotation.authority(current, following, LIFETIME) is step


@pytest.mark.parametrize(
    ("left", "due"),
    [
        pytest.param(None, True, id="none"),
        pytest.param(90.0, False, id="new"),
        pytest.param(60.0, False, id="a third over"),
        pytest.param(59.0, True, id="more than a third over"),
        pytest.param(-5.0, True, id="expired"),
        pytest.param(2000.0, True, id="the lifetime has been shortened"),
    ],
)
def test_when_a_certificate_is_renewed(left: float | None, due: bool) -> None:
    assert rotation.renew(left, LIFETIME) is due


class House:
    """An installation over an API server in memory, with a clock that the test moves."""

    def __init__(self, directory: Path) -> None:
        self.now = START
        self.kube = MemoryKube()
        self.directory = directory
        self.certificates = self.leader(directory)

    def leader(self, directory: Path) -> Certificates:
        return Certificates(
            self.kube,
            "system",
            directory,
            hosts=[HOST],
            lifetime=LIFETIME,
            now=lambda: self.now,  # type: ignore[arg-type]
        )

    def secret(self, name: str) -> dict[str, Any]:
        return self.kube.objects["Secret", "system", name]

    def routers(self) -> tuple[bytes, bytes]:
        """What a router has mounted: whom it believes, and who it says it is."""
        content = issue_content(self.secret(ROUTERS))
        return content["ca.crt"], content["tls.crt"]


def issue_content(secret: dict[str, Any]) -> dict[str, bytes]:
    import base64

    return {key: base64.b64decode(value) for key, value in secret["data"].items()}


def believed(certificate: bytes, bundle: bytes, now: datetime) -> bool:
    """As TLS judges: in its time, and by an authority in its time."""
    leaf = x509.load_pem_x509_certificate(certificate)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        return False
    for authority in x509.load_pem_x509_certificates(bundle):
        if leaf.issuer == authority.subject and authority.not_valid_before_utc <= now <= authority.not_valid_after_utc:
            leaf.verify_directly_issued_by(authority)
            return True
    return False


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "tls")


async def test_a_new_installation_has_all_it_needs_and_writes_no_more(house: House) -> None:
    await house.certificates.refresh()
    assert house.kube.writes == [("create", "Secret", AUTHORITY), ("create", "Secret", ROUTERS)]
    assert house.secret(ROUTERS)["type"] == "kubernetes.io/tls"
    assert [o["uid"] for o in house.secret(ROUTERS)["metadata"]["ownerReferences"]] == ["service-uid"]
    found = tls.read(house.directory)
    own = x509.load_pem_x509_certificate(found.certificate)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOST]
    assert {path.name for path in house.directory.iterdir() if path.is_dir() and not path.is_symlink()} == {
        tls.directory(house.directory).name
    }
    await house.certificates.refresh()
    assert len(house.kube.writes) == 2


async def test_for_months_everybody_is_believed_though_copies_arrive_late(house: House, tmp_path: Path) -> None:
    """Routers see their Secret, and the API server its bundle, a third of a lifetime late; the leader changes."""
    await house.certificates.refresh()
    late: list[tuple[bytes, bytes]] = [house.routers()] * 11
    signers = set()
    for minute in range(1, 400):
        house.now += timedelta(seconds=3)
        if minute % 70 == 0:
            house.directory = tmp_path / f"leader{minute}"
            house.certificates = house.leader(house.directory)
        await house.certificates.refresh()
        late.append(house.routers())
        bundle, certificate = late[-11]
        own = tls.read(house.directory)
        assert believed(own.certificate, bundle, house.now), "a router believes the operator"
        assert believed(certificate, own.ca, house.now), "the operator believes a router"
        signers.add(x509.load_pem_x509_certificate(own.certificate).issuer)
    assert len(signers) >= 5


async def test_two_leaders_at_once_end_with_one_authority(house: House, tmp_path: Path) -> None:
    """The one that loses the race fails, and reads what the other made when it tries again."""

    class Slow(MemoryKube):
        async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
            return None if kind == "Secret" else await super().get(kind, namespace, name)

    await house.certificates.refresh()
    made = issue_content(house.secret(AUTHORITY))
    house.kube.__class__ = Slow
    with pytest.raises(ApiError, match="409"):
        await house.leader(tmp_path / "second").refresh()
    house.kube.__class__ = MemoryKube
    await house.leader(tmp_path / "second").refresh()
    assert issue_content(house.secret(AUTHORITY)) == made


async def test_a_secret_that_somebody_spoiled_is_made_anew(house: House) -> None:
    await house.certificates.refresh()
    house.secret(ROUTERS)["data"]["tls.crt"] = "AAAA"
    await house.certificates.refresh()
    bundle, certificate = house.routers()
    assert believed(certificate, bundle, house.now)


def test_a_client_is_no_server() -> None:
    authority = issue.authority(START, 3600)
    client = x509.load_pem_x509_certificate(issue.leaf(authority, "r", (), START, 60).certificate)
    usage = client.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_certificate_never_outlives_its_authority() -> None:
    authority = issue.authority(START, 60)
    made = issue.leaf(authority, "r", (), START, 3600)
    assert issue.left(made.certificate, START) == pytest.approx(60)


def test_files_are_only_for_their_owner_and_change_together(tmp_path: Path) -> None:
    tls.write(tmp_path, tls.Material(b"a", b"b", b"c"))
    before = tls.directory(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in sorted(before.iterdir())] == [0o600] * 3
    tls.write(tmp_path, tls.Material(b"x", b"y", b"z"))
    assert tls.read(tmp_path) == tls.Material(b"x", b"y", b"z")
    assert not before.exists()
