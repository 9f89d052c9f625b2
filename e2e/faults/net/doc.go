// Package net puts crid's network through the faults F77 to F85: plugins that hang, fail, lie and are not there, leases that run out or cannot be
// had, configuration that changes. The plugin is this test binary.
//
// Each fault of the matrix, and the tests that put it in crid's way; those without its number were there before, in other folders. hack's
// TestEveryRowOfTheMatrixHasATest checks that the tests exist.
//
//	F77   an ADD that hangs                                        TestF77AnAddThatHangs, TestF77AnAddThatHangsForACallerWhoLeaves
//	F78   an ADD that answers nonsense                             TestF78AnswersThatAreNoResults, TestF78IPv6Only
//	F79   a plugin of the chain is missing                         TestF79AChainWithAPluginThatIsNotThere, TestF79APluginVanishesBeforeDel
//	F80   a DEL that fails, or hangs                               TestF80ADelThatFailsThenWorks, TestF80ADelThatHangs
//	F81   the configuration changes between ADD and DEL            TestF81TheConfigurationIsReplacedBetweenAddAndDel
//	F82   addresses run out                                        TestF82AddressesRunOut
//	F83   the configuration comes late, is torn and rewritten      TestF83TheConfigurationComesAndChanges
//	F84   a crash between ADD and its record                       TestF84ACrashBetweenAddAndItsRecord
//	F85   leases locked or read-only                               TestF85LeasesThatCannotBeHad, TestF85AnswerInTimeWhileLeasesAreLocked
package net
