from dataset.io.resume import differences, settings_differ


def test_a_line_per_setting_that_differs():
    before = {"seed": 0, "size": 8, "same": [1, 2], "gone": 3}
    now = {"seed": 1, "size": 8, "same": [1, 2], "new": None}
    assert differences(before, now) == {"gone": "gone was 3, is now None", "seed": "seed was 0, is now 1"}
    assert differences(now, now) == {}


def test_nested_settings_have_dotted_names_and_can_be_ignored():
    before = {"a": {"x": 1, "y": {"z": 2}}, "b": {}}
    now = {"a": {"x": 2, "y": {"z": 3}}, "b": 4}
    assert list(differences(before, now)) == ["a.x", "a.y.z", "b"]
    assert list(differences(before, now, {"a.x", "b"})) == ["a.y.z"]
    assert list(differences(before, now, {"a"})) == ["b"]


def test_the_text_has_one_line_per_setting():
    lines = differences({"a": 1, "b": 2}, {"a": 3, "b": 4}).values()
    assert settings_differ("out", lines, "Choose another folder").splitlines() == [
        "out was started with other settings:",
        "  a was 1, is now 3",
        "  b was 2, is now 4",
        "Choose another folder",
    ]


def test_of_long_lists_only_the_items_that_differ_are_shown():
    old = [f"uid-{i:04d}" for i in range(1000)]
    assert differences({"uids": old}, {"uids": [*old[:500], "x", *old[501:]]}) == {
        "uids": "uids[500] was 'uid-0500', is now 'x'"
    }
    assert differences({"uids": old}, {"uids": old[:998]}) == {
        "uids": "uids had 1000 items, now has 998; uids[998] was 'uid-0998', is now None (2 items differ)"
    }
    assert differences({"uids": old}, {"uids": None})["uids"].endswith("'uid-0999'], is now None")
    assert len(differences({"text": "a" * 1000}, {"text": "b" * 1000})["text"]) < 300
