"""The command line: parse, call one library function, render. `app.main` is the way in."""
