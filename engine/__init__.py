"""What any method needs to be trained, evaluated and rendered."""
