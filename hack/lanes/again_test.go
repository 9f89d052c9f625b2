package main

import "testing"

func TestWhatIsRunAgain(t *testing.T) {
	all := byPackage([]string{"store TestA/with_a_part", "e2e/core TestB", "store TestA/other", "store TestC"})
	if len(all) != 2 || all[0].dir != "store" || all[0].pattern() != "^(TestA|TestC)$" || all[1].pattern() != "^(TestB)$" || len(all[0].failures) != 3 {
		t.Errorf("got %+v", all)
	}
	if all := byPackage([]string{"store TestA", "store (the package)"}); all != nil {
		t.Errorf("a package that failed as a whole is run again: %+v", all)
	}
}
