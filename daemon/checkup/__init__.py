"""What `stoker doctor` looks at: each module makes findings about one thing, and none of them changes anything."""
