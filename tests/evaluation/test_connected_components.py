import numpy as np

from jaxad.evaluation.connected_components import find_components


def test_regions_are_eight_connected_boxes_in_order_of_their_peaks():
    values = np.zeros((9, 12), np.float32)
    values[1:3, 2:5] = 5.0
    values[3, 5] = 6.0  # touches the corner of the first
    values[7:9, 0:1] = 9.0
    low, high = find_components(values, values > 1)[::-1]
    assert low == (2, 1, 4, 3, 7, 6.0)
    assert high == (0, 7, 1, 2, 2, 9.0)
    assert find_components(values, values > 10) == ()
    everything = find_components(values, values > -1)
    assert [tuple(region) for region in everything] == [(0, 0, 12, 9, 108, 9.0)]
