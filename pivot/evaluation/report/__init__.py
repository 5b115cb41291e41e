"""The report page of a whole journey: numbers in words, chapters, pictures, one HTML file."""
