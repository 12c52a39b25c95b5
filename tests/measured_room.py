"""A simulated room as if it had been measured: places all round the listener, and their responses."""

from functools import cache

import numpy as np

from batcli.audio.hrtf import kemar
from batcli.audio.rooms import ListenerPose, room_with_rt60, simulate

AZIMUTHS = (0, 30, 75, 100, 150, 180, -150, -100, -75, -30)  # 0 in front, left positive
ELEVATIONS = (0, 0, 20, 0, -20, 0, 30, 0, 0, 0)
DISTANCES = (1.0, 1.5, 1.2, 1.0, 1.4, 1.6, 1.2, 1.0, 1.5, 1.0)
RT60 = 0.3


def front_left_up(azimuth, elevation, distance):
    a, e = np.radians(azimuth), np.radians(elevation)
    return distance * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])


PLACES = [front_left_up(*each) for each in zip(AZIMUTHS, ELEVATIONS, DISTANCES, strict=True)]


@cache
def simulated() -> list[np.ndarray]:
    """[2 x T] of each place, 32 kHz, left ear first."""
    room = room_with_rt60((4.5, 2.6, 5.0), np.array([[0.1] * 7] * 6), RT60)
    sources = [(-left, up, -front) for front, left, up in PLACES]
    made = simulate(room, ListenerPose((2.2, 1.4, 2.4)), sources, kemar(), np.random.default_rng(0))
    return [brir.samples for brir in made]
