import torch

from klaudit.models.uniforms import draw_uniforms


def test_a_row_depends_on_its_key_alone() -> None:
    rows = draw_uniforms(["a", "b", "c"], n=5)
    assert torch.equal(draw_uniforms(["c", "a"], n=5), rows[[2, 0]])
    assert len({float(row[0]) for row in rows}) == 3


def test_a_longer_row_starts_as_the_shorter_one() -> None:
    assert torch.equal(draw_uniforms(["a", "b"], n=40)[:, :7], draw_uniforms(["a", "b"], n=7))


def test_the_stream_of_a_key_is_written_down() -> None:
    """What was measured on one machine is continued on another: these numbers may never change."""
    expected = torch.tensor([[0.98898006517764, 0.27306637316381, 0.92281452404302]], dtype=torch.float64)
    torch.testing.assert_close(draw_uniforms(["klaudit"], n=3), expected, rtol=0, atol=1e-13)


def test_numbers_are_uniform_within_a_row_and_across_rows() -> None:
    # standard error of the mean of 20,000 uniforms: 0.00204
    for sample in (draw_uniforms(["one"], n=20_000), draw_uniforms([str(i) for i in range(20_000)], n=1)):
        assert sample.dtype == torch.float64
        assert float(sample.min()) >= 0
        assert float(sample.max()) < 1
        assert abs(float(sample.mean()) - 0.5) < 5 * 0.00204


def test_no_keys_give_no_rows() -> None:
    assert draw_uniforms([], n=3).shape == (0, 3)
