"""Daily means, 8-hour ozone and the air quality index, and their scores."""
