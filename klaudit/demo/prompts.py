"""Beginnings of short reviews, written for this project."""

from klaudit.drift.prompt_set import PromptSet

REVIEW_BEGINNINGS: tuple[str, ...] = (
    "The film was",
    "I watched this movie and",
    "The food at this place is",
    "My stay at the hotel was",
    "This book is",
    "The service was",
    "I bought this phone and it",
    "The album sounds",
    "After one week the shoes",
    "The concert last night was",
    "Our waiter was",
    "The plot of this story",
    "This game feels",
    "The new coffee machine",
    "The acting in this play",
    "The room was",
    "I took the train and the trip was",
    "The teacher of this course",
    "This jacket is",
    "The museum was",
    "The last episode was",
    "The soup tasted",
    "The staff at the desk",
    "I tried the dessert and it was",
)
"""What the demo trains on."""

HELDOUT_BEGINNINGS = PromptSet(
    "review beginnings",
    (
        "The camera I ordered",
        "The pizza here is",
        "This podcast is",
        "The view from the tower was",
        "My new bicycle",
        "The guide on our tour",
        "The ending of the novel",
        "This restaurant is",
        "The keyboard feels",
        "Our flight was",
        "The garden of the inn",
        "The singer's voice",
        "The battery of this laptop",
        "The breakfast buffet was",
        "This painting looks",
        "The driver was",
    ),
)
"""What drift is measured on: none of them is trained on."""
