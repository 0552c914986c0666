"""Sketchfab's license codes and their SPDX identifiers."""

import pytest

from dataset.errors import UserError
from render.sources.licenses import CODES, spdx


@pytest.mark.parametrize("code", ["by", "by-nc", "by-nc-nd", "by-nc-sa", "by-nd", "by-sa"])
def test_a_code_keeps_all_its_conditions(code):
    identifier = f"CC-{code.upper()}-4.0"
    assert CODES[code] == identifier
    assert {spdx(name) for name in (code, code.upper(), identifier, identifier.lower())} == {identifier}


def test_the_public_domain_has_its_own_version():
    assert spdx("cc0") == spdx("CC0") == spdx("cc0-1.0") == "CC0-1.0"
    assert len(CODES) == 7


@pytest.mark.parametrize("name", ["", "mit", "nc", "CC-BY-2.0"])
def test_an_unknown_license_is_refused_with_the_known_ones(name):
    with pytest.raises(
        UserError, match=rf"unknown license '{name}'; choose from by \(CC-BY-4\.0\), .*cc0 \(CC0-1\.0\)"
    ):
        spdx(name)


def test_older_licenses_are_named_by_their_identifier():
    assert (spdx("cc-by-3.0"), spdx("CC-BY-3.0-US")) == ("CC-BY-3.0", "CC-BY-3.0-US")
