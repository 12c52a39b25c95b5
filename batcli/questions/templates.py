"""The wordings of the questions, at least twenty per type, written for this project.

In braces: `{x}` and `{y}`, the events' names, always after "the sound of", so that a name with
commas ("accelerating, revving, vroom") reads as one; `{direction}` ("right, front, above"),
`{place}` ("to your right, in front of you and above you") and `{distance}` ("3.5 meters"), where a
source is; `{relation}`, one of the phrases below, the point of a question about two sources.
"""

from __future__ import annotations

from collections.abc import Sequence

CLASSIFICATION = (
    "Which sound events can you hear in this recording?",
    "What is making the sound in this clip?",
    "List the sound events that are present in the audio.",
    "Name every kind of sound that occurs in this recording.",
    "What can be heard here?",
    "Identify the events that you hear.",
    "Which labels describe the sound of this audio clip?",
    "Tell me what sounds this recording contains.",
    "What kinds of sound does the listener hear?",
    "Which events does the audio contain?",
    "Describe the content of this clip by its sound events.",
    "What sounds are there in the scene?",
    "Please name the sound events of this scene.",
    "Can you tell which sounds occur in the audio?",
    "Give the names of all the sounds that you hear.",
    "What is audible in this recording?",
    "Say what you hear in this clip.",
    "To which classes of sound does this recording belong?",
    "What are the sources of sound in this audio?",
    "Recognize the sound events in the recording.",
    "Which sounds reach the listener's ears?",
    "How would you label what is heard in this clip?",
)

DOA = (
    "Where does the sound come from, and how far away is it?",
    "In which direction and at what distance is the source of the sound?",
    "Locate the sound: give its direction and its distance.",
    "From where do you hear the sound, and from how far?",
    "What are the direction and the distance of the sound source?",
    "Tell me on which sides of you the sound is, and how far off.",
    "Where around you is the source, and how many meters away?",
    "Point out the position of the sound by direction and distance.",
    "Describe where the sound source is located relative to you.",
    "Is the sound left or right, front or behind, above or below, and how distant?",
    "Give the location of the source as heard by the listener.",
    "Where in the room is the sound, seen from the listener?",
    "What direction is the sound heard from, and what is its distance?",
    "Estimate the direction of arrival and the distance of the sound.",
    "Please locate what you hear in direction and in distance.",
    "At which place relative to the listener does the sound arise?",
    "How far away is the sound, and in which direction?",
    "Which way would you turn to face the sound, and how far would you have to go?",
    "Where is the sound emitted, relative to your head?",
    "State the direction and the range of the sound source.",
    "Where would you say that this sound originates, and how distant is it?",
    "Can you determine the direction and the distance of what you hear?",
)

AXIS_CHOICES = ("to the left or to the right", "in front or behind", "above or below")
"""Phrases for `{axes}`: what a question about some of the axes asks of each."""

DOA_PLANE = (
    "Is the sound {axes}, and how far away is it?",
    "{axes}: where is the sound, and at what distance?",
    "Say whether the sound is {axes}, and how far off.",
    "Do you hear the sound {axes}, and from how many meters?",
    "Tell me if the source is {axes}, and how distant it is.",
    "Where is it, {axes}? And how far?",
    "Is what you hear {axes}, and what is its distance?",
    "Locate the sound: {axes}, and how many meters away?",
    "Does the source lie {axes}, and how far from you?",
    "How far away is the sound, and is it {axes}?",
    "Seen from the listener, is the source {axes}, and at which distance?",
    "Decide whether the sound arises {axes}, and estimate its distance.",
    "Choose for the sound: {axes}; and give its distance.",
    "At what distance is the source, and is it {axes}?",
    "Can you tell whether the sound is {axes}, and how distant?",
    "Relative to you, is the source {axes}, and how many meters off?",
    "Would you look for the sound {axes}, and how far away?",
    "Which holds for the sound, {axes}? How far is it?",
    "Which applies to the source, {axes}, and what is its range?",
    "Please say if you hear it {axes}, and how far it is.",
)
"""Questions about a source near a plane between two words: about the other axes and the distance."""

SINGLE_DOA_PLANE = (
    "Is the sound of {x} {axes}, and how far away is it?",
    "{axes}: where is the sound of {x}, and at what distance?",
    "Say whether the sound of {x} is {axes}, and how far off.",
    "Do you hear the sound of {x} {axes}, and from how many meters?",
    "Tell me if the sound of {x} is {axes}, and how distant it is.",
    "Where is the sound of {x}, {axes}? And how far?",
    "Of the two sources, is the one with the sound of {x} {axes}, and what is its distance?",
    "Locate the sound of {x}: {axes}, and how many meters away?",
    "Does the source of the sound of {x} lie {axes}, and how far from you?",
    "How far away is the sound of {x}, and is it {axes}?",
    "Seen from the listener, is the sound of {x} {axes}, and at which distance?",
    "Decide whether the sound of {x} arises {axes}, and estimate its distance.",
    "Choose for the sound of {x}: {axes}; and give its distance.",
    "At what distance is the sound of {x}, and is it {axes}?",
    "Can you tell whether the sound of {x} is {axes}, and how distant?",
    "Relative to you, is the sound of {x} {axes}, and how many meters off?",
    "Would you look for the sound of {x} {axes}, and how far away?",
    "Which holds for the sound of {x}, {axes}? How far is it?",
    "Ignore the other source: is the sound of {x} {axes}, and how far?",
    "Two things sound at once; is the sound of {x} {axes}, and how far is it?",
)
"""The same about one of two sources."""

SINGLE_CLASSIFICATION = (
    "Which sounds come from the {direction}, about {distance} away?",
    "What do you hear {place}, at a distance of about {distance}?",
    "Name the sound events from the {direction} at roughly {distance}.",
    "What is sounding {place}, around {distance} from you?",
    "Identify the sound whose source is {place}, about {distance} away.",
    "Which events can be heard from the {direction}, at {distance}?",
    "What makes the sound that arrives from the {direction}, approximately {distance} off?",
    "There are two sources; what is the one {place}, about {distance} away?",
    "Of the two sources, which events belong to the one at the {direction}, about {distance} from the listener?",
    "Listen {place}, at about {distance}: what sounds there?",
    "Tell me what is heard from the {direction} at about {distance}.",
    "What kind of sound is produced {place}, about {distance} from here?",
    "Which sound events are located {place}, at about {distance}?",
    "List the events at the {direction}, roughly {distance} from you.",
    "How would you label the source {place}, about {distance} off?",
    "What sounds does the source at the {direction}, {distance} away, emit?",
    "Give the names of the sounds that originate {place}, about {distance} away.",
    "Ignore the other source; what can be heard from the {direction} at about {distance}?",
    "Focus on the source {place}, around {distance} away, and name its sounds.",
    "If you turn to the {direction}, what is it that sounds about {distance} away?",
    "Can you name what is audible {place}, at around {distance}?",
    "Recognize the sound events coming from the {direction}, at approximately {distance}.",
)

SINGLE_DOA = (
    "Where is the sound of {x}, and how far?",
    "Where does the sound of {x} come from, and how far away is it?",
    "In which direction and at what distance is the sound of {x}?",
    "Locate the sound of {x}: give its direction and its distance.",
    "From where do you hear the sound of {x}, and from how far?",
    "What are the direction and the distance of the sound of {x}?",
    "Tell me on which sides of you the sound of {x} is, and how far off.",
    "Where around you is the sound of {x}, and how many meters away?",
    "Describe where the sound of {x} is located relative to you.",
    "Of the two sources, where is the one with the sound of {x}, and how distant is it?",
    "Give the location of the sound of {x} as heard by the listener.",
    "What direction is the sound of {x} heard from, and what is its distance?",
    "Estimate the direction of arrival and the distance of the sound of {x}.",
    "Please locate the sound of {x} in direction and in distance.",
    "At which place relative to the listener does the sound of {x} arise?",
    "How far away is the sound of {x}, and in which direction?",
    "Which way would you turn to face the sound of {x}, and how far would you have to go?",
    "Where is the sound of {x} emitted, relative to your head?",
    "State the direction and the range of the sound of {x}.",
    "Can you determine the direction and the distance of the sound of {x}?",
    "Two things sound at once; where is the sound of {x}, and how far is it from you?",
    "Ignore the other source and say where the sound of {x} is, and how far.",
    "Point out the position of the sound of {x} by direction and distance.",
)

PLACES = {
    "left": "to your left",
    "right": "to your right",
    "front": "in front of you",
    "behind": "behind you",
    "above": "above you",
    "below": "below you",
}
"""Phrases for the place of one source, for `{relation}` and `{place}`."""

BESIDE = {
    "left": "further to the left than",
    "right": "further to the right than",
    "front": "further forward than",
    "behind": "further back than",
    "above": "higher up than",
    "below": "lower down than",
    "near": "nearer to you than",
    "far": "farther from you than",
}
"""Phrases that compare one source with another, along the listener's axes or in distance from the listener."""

EXTREMES = {
    "left": "further to the left",
    "right": "further to the right",
    "front": "further forward",
    "behind": "further back",
    "above": "higher up",
    "below": "lower down",
    "near": "nearer to you",
    "far": "farther from you",
}
"""Phrases that choose one of two sources."""

DIRECTION_BOTH = (
    "Are the sound of {x} and the sound of {y} both {relation}?",
    "Do the sound of {x} and the sound of {y} both arise {relation}?",
    "Is it true that both the sound of {x} and the sound of {y} are {relation}?",
    "Do you hear the sound of {x} as well as the sound of {y} {relation}?",
    "Are both sources, the sound of {x} and the sound of {y}, {relation}?",
    "Would you find the sound of {x} and also the sound of {y} {relation}?",
    "Is the sound of {x} {relation}, and the sound of {y} as well?",
    "Are the sources of the sound of {x} and of the sound of {y} both located {relation}?",
    "Are the places of the sound of {x} and of the sound of {y} both {relation}?",
    "Can one say that the sound of {x} and the sound of {y} are both to be heard {relation}?",
    "Are you hearing both the sound of {x} and the sound of {y} from somewhere {relation}?",
    "Both the sound of {x} and the sound of {y} are {relation}: is that so?",
)
"""`{relation}` is one of PLACES."""

DIRECTION_BESIDE = (
    "Is the sound of {x} {relation} the sound of {y}?",
    "As you hear it, is the sound of {x} {relation} the sound of {y}?",
    "Is the source of the sound of {x} {relation} that of the sound of {y}?",
    "Would you say that the sound of {x} is {relation} the sound of {y}?",
    "Does the sound of {x} come from {relation} the sound of {y}?",
    "Is it true that the sound of {x} is {relation} the sound of {y}?",
    "Is the sound of {x} located {relation} the sound of {y}, from where you are?",
    "Comparing directions, is the sound of {x} {relation} the sound of {y}?",
    "Is the position of the sound of {x} {relation} the position of the sound of {y}?",
    "Do you hear the sound of {x} {relation} the sound of {y}?",
    "From the listener's point of view, is the sound of {x} {relation} the sound of {y}?",
    "The sound of {x} is {relation} the sound of {y}: is that so?",
)
"""`{relation}` is one of BESIDE, but for the two in distance."""

DISTANCE_BOTH = (
    "Is the sound of {x} {relation} the sound of {y}?",
    "As far as you can tell, is the sound of {x} {relation} the sound of {y}?",
    "Is the source of the sound of {x} {relation} that of the sound of {y}?",
    "Would you say that the sound of {x} is {relation} the sound of {y}?",
    "Does the sound of {x} come from a place that is {relation} the sound of {y}?",
    "Is it true that the sound of {x} is {relation} the sound of {y}?",
    "Comparing distances, is the sound of {x} {relation} the sound of {y}?",
    "Judging by distance alone, is the sound of {x} {relation} the sound of {y}?",
    "Does the sound of {x} have its origin {relation} the sound of {y}?",
    "Is whatever makes the sound of {x} {relation} whatever makes the sound of {y}?",
    "Do you hear the sound of {x} from a point {relation} the sound of {y}?",
    "Would you agree that the sound of {x} is {relation} the sound of {y}?",
    "Is the place of the sound of {x} {relation} the place of the sound of {y}?",
    "Whichever way you face, is the sound of {x} {relation} the sound of {y}?",
    "Measured in a straight line, is the sound of {x} {relation} the sound of {y}?",
    "Does it seem to you that the sound of {x} is {relation} the sound of {y}?",
    "Is the sound of {x} at a point {relation} the sound of {y}?",
    "In terms of range, is the sound of {x} {relation} the sound of {y}?",
    "With both sources sounding, is the sound of {x} {relation} the sound of {y}?",
    "The sound of {x} is {relation} the sound of {y}: is that so?",
)
"""`{relation}` is one of the two in distance of BESIDE."""

NONBINARY_DIRECTION = (
    "Is the sound of {x} to the left or to the right of the sound of {y}?",
    "Is the sound of {x} to the right or to the left of the sound of {y}?",
    "On which side of the sound of {y} is the sound of {x}, left or right?",
    "On which side of the sound of {y} is the sound of {x}, right or left?",
    "Do you hear the sound of {x} left or right of the sound of {y}?",
    "With the sound of {y} as the reference, is the sound of {x} further to your left or further to your right?",
    "Starting at the sound of {y}, would you go left or right to reach the sound of {x}?",
    "Left or right: where is the sound of {x} relative to the sound of {y}?",
    "Right or left: where is the sound of {x} relative to the sound of {y}?",
    "To which side of the sound of {y} does the sound of {x} lie, left or right?",
    "Relative to the sound of {y}, does the sound of {x} come from the left or from the right?",
    "Relative to the sound of {y}, does the sound of {x} come from the right or from the left?",
    "Compared with the sound of {y}, is the sound of {x} further left or further right?",
    "Compared with the sound of {y}, is the sound of {x} further right or further left?",
    "Is the source of the sound of {x} left or right of the source of the sound of {y}?",
    "Which side of the sound of {y}, left or right, is the sound of {x} on?",
    "Choose left or right: the sound of {x} is on which side of the sound of {y}?",
    "Say whether the sound of {x} is left or right of the sound of {y}.",
    "Say whether the sound of {x} is right or left of the sound of {y}.",
    "Tell me whether the sound of {x} is on the left or on the right of the sound of {y}.",
    "Going from the sound of {y} to the sound of {x}, do you move to the left or to the right?",
    "As the listener hears it, is the sound of {x} to the left or to the right of the sound of {y}?",
)

NONBINARY_DISTANCE = (
    "How far is the sound of {x} from the sound of {y}?",
    "What is the distance between the sound of {x} and the sound of {y}?",
    "How many meters lie between the sound of {x} and the sound of {y}?",
    "How far apart are the sound of {x} and the sound of {y}?",
    "Estimate the distance from the sound of {x} to the sound of {y}.",
    "How long is the straight line from the sound of {x} to the sound of {y}?",
    "At what distance from each other are the sound of {x} and the sound of {y}?",
    "By how many meters is the sound of {x} separated from the sound of {y}?",
    "What distance separates the sound of {x} from the sound of {y}?",
    "Give the distance between the sources of the sound of {x} and of the sound of {y}.",
    "Tell me how far the sound of {x} is from the sound of {y}.",
    "If you went straight from the sound of {x} to the sound of {y}, how far would you go?",
    "How much space is there between the sound of {x} and the sound of {y}?",
    "How widely are the sound of {x} and the sound of {y} spaced, in meters?",
    "Measured in meters, how far is it from the sound of {x} to the sound of {y}?",
    "How distant are the sound of {x} and the sound of {y} from one another?",
    "What is the range from the sound of {x} to the sound of {y}?",
    "How large is the gap between the sound of {x} and the sound of {y}?",
    "Please say how far apart the sound of {x} and the sound of {y} are.",
    "How far would a string have to reach to join the sound of {x} and the sound of {y}?",
    "From the sound of {x} to the sound of {y}, how many meters is it?",
    "Can you estimate how far the sound of {x} is from the sound of {y}?",
)

NONBINARY_SOURCE = (
    "Which is {relation}, the sound of {x} or the sound of {y}?",
    "Which one is {relation}: the sound of {x} or the sound of {y}?",
    "Of the sound of {x} and the sound of {y}, which is {relation}?",
    "What is {relation}, the sound of {x} or the sound of {y}?",
    "Name the event that is {relation}: the sound of {x} or the sound of {y}.",
    "Between the sound of {x} and the sound of {y}, which one is {relation}?",
    "Do you hear the sound of {x} or the sound of {y} as the one {relation}?",
    "Comparing the sound of {x} with the sound of {y}, which of them is {relation}?",
    "Which source is {relation}, that of the sound of {x} or that of the sound of {y}?",
    "Tell me which is {relation}, the sound of {x} or the sound of {y}.",
    "Is it the sound of {x} or the sound of {y} that is {relation}?",
    "The sound of {x} or the sound of {y}: which is {relation}?",
    "You hear the sound of {x} and the sound of {y}; which of the two is {relation}?",
    "Given the sound of {x} and the sound of {y}, name the one that is {relation}.",
    "Which of these two is {relation}: the sound of {x} or the sound of {y}?",
    "Say whether it is the sound of {x} or the sound of {y} that is {relation}.",
    "Out of the sound of {x} and the sound of {y}, which comes from {relation}?",
    "Which event is {relation}, the sound of {x} or the sound of {y}?",
    "From where you are, is the sound of {x} or the sound of {y} {relation}?",
    "Decide which is {relation}, the sound of {x} or the sound of {y}.",
    "Which source would you call the one {relation}: the sound of {x} or the sound of {y}?",
    "Among the sound of {x} and the sound of {y}, which one lies {relation}?",
)
"""`{relation}` is one of EXTREMES."""


def place(words: Sequence[str]) -> str:
    """A direction as a phrase: ("right", "front", "above") → "to your right, in front of you and above you"."""
    *first, last = (PLACES[word] for word in words)
    return f"{', '.join(first)} and {last}" if first else last


def axes(clear: Sequence[bool]) -> str:
    """What a question about some axes asks: (True, True, False) → "to the left or to the right, in front or behind"."""
    return ", ".join(phrase for phrase, asked in zip(AXIS_CHOICES, clear, strict=True) if asked)


def fill_place(wording: str, words: Sequence[str], distance: float) -> str:
    """Fill a wording of `SINGLE_CLASSIFICATION` with a direction (up to three words) and a distance in metres."""
    return wording.format(direction=", ".join(words), place=place(words), distance=meters(distance))


def meters(distance: float) -> str:
    """A distance as a phrase: 1.0 → "1 meter", 3.5 → "3.5 meters"."""
    return f"{distance:g} meter{'' if distance == 1 else 's'}"
