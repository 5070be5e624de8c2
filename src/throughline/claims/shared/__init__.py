"""What two or more claims share: never a claim itself."""
