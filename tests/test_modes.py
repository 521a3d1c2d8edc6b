import pytest
from torch import nn

from wamlib.modes import eval_mode


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))).train()
    model[1][0].eval()
    return model


def flags(model):
    return [module.training for module in model.modules()]


def test_every_module_is_in_eval_mode_inside_and_as_it_was_afterwards(model):
    before = flags(model)
    with eval_mode(model) as inside:
        assert inside is model
        assert not any(flags(model))
    assert flags(model) == before
    # The twin: the flags differ, so that one flag for all would not bring them back.
    assert flags(model.train()) != before


def test_modes_come_back_after_an_error(model):
    before = flags(model)
    with pytest.raises(KeyError), eval_mode(model):
        raise KeyError(model.train().training)
    assert flags(model) == before
