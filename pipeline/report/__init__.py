"""Results of all stages -> tables, figures and one page that needs neither network nor scripts."""
