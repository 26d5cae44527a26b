"""SPIFFE ids in X.509 certificates: the one reader for all decisions by identity."""

from __future__ import annotations

from cryptography import x509

from control.model.identity import SpiffeId, parse_spiffe_id


def spiffe_ids(certificate: x509.Certificate) -> tuple[SpiffeId, ...]:
    """The SPIFFE ids among the URI names, in order. Other names are no identity.

    A certificate whose names cannot be read has none.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    found: list[SpiffeId] = []
    for uri in uris:
        try:
            found.append(parse_spiffe_id(uri))
        except ValueError:
            continue
    return tuple(found)
